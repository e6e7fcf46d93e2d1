// Prints the JSON Schema of the configuration file, for editors.
import { jsonSchema } from '../src/config/schema.ts'

console.log(JSON.stringify(jsonSchema(), null, 2))
