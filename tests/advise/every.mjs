/** Writes the advice for each list of answers that stands on standard input, as the page at /advise would give it. */

import { readFileSync } from "node:fs";

const [, , engine, rulesPath, url] = process.argv;
const { advise } = await import(engine);
const rules = JSON.parse(readFileSync(rulesPath, "utf8"));
const asked = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(asked.map((answers) => advise(rules, answers, url))));
