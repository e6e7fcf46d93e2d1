/**
 * JSON on one line that can go to a terminal. `fit` is applied to all texts in it. What JSON leaves as it is, and terminals
 * obey, is escaped: DEL, and the control characters of ISO 6429 above it, such as 0x9b, which begins what ESC [ does.
 */
export function jsonLine(value: object, fit: (text: string) => string = (text) => text): string {
  const text = JSON.stringify(value, (_key, each: unknown) => (typeof each === 'string' ? fit(each) : each))
  return text.replaceAll(/[\u007f-\u009f]/g, (control) => `\\u00${control.charCodeAt(0).toString(16)}`)
}
