/**
 * What the answers to six questions come to: tellwire/advise/rules.py in JavaScript, over the same rules.json. A test
 * holds the two together for every answer there is.
 *
 * @typedef {Record<string, string>} Answers
 * @typedef {Record<string, string[]>} When
 * @typedef {object} Rules
 * @property {{ key: string, ask: string, options: { value: string, say: string, count?: number }[] }[]} questions
 * @property {{ key: string, name: string, cost: string }[]} transports
 * @property {{ when: When, pick: string, next: string, why: string[], next_why: string }[]} choices
 * @property {{ transports: string[], when: When, say: string }[]} remarks
 * @property {{ transport: string, when: When, say: string, cannot?: boolean }[]} against
 * @property {{ transports: string[], when: When, language: string, code: string[] }[]} starts
 * @property {{ name: string, path: (string | Record<string, number>)[], unit: string }[]} figures
 *
 * @typedef {{ key: string, name: string, why: string[], remarks: string[] }} Advised
 * @typedef {object} Advice
 * @property {Answers} answers
 * @property {Advised} transport
 * @property {Advised} runner_up
 * @property {Record<string, string>} against
 * @property {{ language: string, code: string }[]} starts
 */

/** @param {When} when @param {Answers} answers */
function isMet(when, answers) {
  return Object.entries(when).every(([key, values]) => values.includes(answers[key]));
}

/**
 * @param {Rules} rules
 * @param {Answers} answers For the key of each question one of its values.
 * @param {string} url Where the server is, for the lines to begin with.
 * @returns {Advice}
 */
export function advise(rules, answers, url) {
  for (const { key, options } of rules.questions) {
    const values = options.map(({ value }) => value);
    if (!values.includes(answers[key])) throw new RangeError(`${key} has to be one of: ${values.join(", ")}`);
  }
  const choice = rules.choices.find(({ when }) => isMet(when, answers));
  if (!choice) throw new RangeError("the rules have no choice for these answers");
  const { pick, next } = choice;

  /** @param {string} key @param {string[]} why @returns {Advised} */
  const advised = (key, why) => ({
    key,
    name: rules.transports.find((transport) => transport.key === key)?.name ?? key,
    why,
    remarks: rules.remarks
      .filter(({ transports, when }) => transports.includes(key) && isMet(when, answers))
      .map(({ say }) => say),
  });

  const { protocol, hostname } = new URL(url);
  const grpc = `${protocol === "https:" ? "grpcs" : "grpc"}://${hostname}:50051`;
  /** @type {Record<string, string>} */
  const filled = { "{url}": url.replace(/\/+$/, ""), "{grpc}": grpc, "{transport}": pick };
  const others = rules.transports.filter(({ key }) => key !== pick && key !== next);
  return {
    answers: Object.fromEntries(rules.questions.map(({ key }) => [key, answers[key]])),
    transport: advised(pick, choice.why),
    runner_up: advised(next, [choice.next_why]),
    against: Object.fromEntries(
      others.map(({ key, cost }) => [
        key,
        rules.against.find(({ transport, when }) => transport === key && isMet(when, answers))?.say ?? cost,
      ]),
    ),
    starts: rules.starts
      .filter(({ transports, when }) => transports.includes(pick) && isMet(when, answers))
      .map(({ language, code }) => ({
        language,
        code: code.join("\n").replaceAll(/\{(?:url|grpc|transport)\}/g, (found) => filled[found]),
      })),
  };
}
