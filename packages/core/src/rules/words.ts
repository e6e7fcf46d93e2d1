/** A word of a text that is a rule. */
export interface Word {
  readonly text: string
  /** From 1. */
  readonly column: number
  /** Then it is a value, whatever it says. */
  readonly quoted: boolean
}

/** A word in quotes, in which a quote is written twice; a comment, which may hold quotes; any other word. */
const pattern = /"(?<quoted>(?:[^"]|"")*)"(?=[\s,]|$)|(?<!\S)(?<comment>#[^\n]*)|[^\s,]+/g

/** Words are separated by commas or spaces. `end` is the column behind the last. */
export function splitWords(text: string): { words: readonly Word[]; end: number } {
  const matches = [...text.matchAll(pattern)].filter(({ groups }) => groups?.['comment'] === undefined)
  const last = matches.at(-1)
  return {
    words: matches.map(({ 0: plain, index, groups }) => ({
      text: groups?.['quoted']?.replaceAll('""', '"') ?? plain,
      column: index + 1,
      quoted: groups?.['quoted'] !== undefined,
    })),
    end: last === undefined ? 1 : last.index + last[0].length + 1,
  }
}

/** Whether its quotes are not where a word begins and ends: who knows what belongs to it. */
export const isBroken = ({ text, quoted }: Word): boolean => !quoted && text.includes('"')

/** Writes a word that {@link splitWords} reads, apart from those that mean something. */
export function quote(word: string, meaning: readonly string[] = []): string {
  const plain = /^[^\s,"#!][^\s,"#]*$/.test(word) && !meaning.includes(word)
  return plain ? word : `"${word.replaceAll('"', '""')}"`
}
