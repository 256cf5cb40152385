/** The page /advise: six questions, and at once what they come to. The answers are in the address, to be passed on. */

import { listing } from "../copying.js";
import { element, get, say } from "../elements.js";
import { aboutOf, drawFigures } from "./figures.js";
import { advise } from "./rules.js";

/** @typedef {import("./rules.js").Rules} Rules */
/** @typedef {import("./rules.js").Answers} Answers */

/** Where somebody begins who has said nothing yet: the most usual of all. @type {Answers} */
const USUAL = { speaks: "server", fresh: "soon", binary: "no", runs: "browsers", network: "unknown", readers: "some" };

/** @type {Record<string, string>} */
const LANGUAGES = { js: "In a page", python: "In Python", console: "In a shell" };

/** @param {Rules} rules @returns {Answers} What the address says, and what is usual where it says nothing. */
function answersOfAddress(rules) {
  const said = new URLSearchParams(location.hash.slice(1));
  return Object.fromEntries(
    rules.questions.map(({ key, options }) => {
      const value = said.get(key) ?? "";
      return [key, options.some((option) => option.value === value) ? value : USUAL[key]];
    }),
  );
}

/** @param {Rules} rules @param {Answers} answers */
function drawQuestions(rules, answers) {
  get("questions").replaceChildren(
    ...rules.questions.map(({ key, ask, options }) => {
      const set = document.createElement("fieldset");
      set.append(element("legend", "", ask));
      for (const { value, say: text } of options) {
        const label = element("label", "option");
        const input = element("input", "");
        Object.assign(input, { type: "radio", name: key, value, checked: value === answers[key] });
        label.append(input, element("span", "", text));
        set.append(label);
      }
      return set;
    }),
  );
}

/** @param {string} id @param {string[]} texts */
function drawList(id, texts) {
  get(id).replaceChildren(...texts.map((text) => element("li", "", text)));
}

/** @param {Rules} rules @param {Answers} answers @param {any} run What was measured, where it could be had. */
function drawAnswer(rules, answers, run) {
  const base = new URL(".", document.baseURI).href;
  const { transport, runner_up, against, starts } = advise(rules, answers, base);
  document.body.dataset.transport = transport.key;
  document.body.dataset.next = runner_up.key;
  say(get("take-title"), transport.name);
  say(get("announcer"), `Take ${transport.name}, else ${runner_up.name}.`);
  drawList("why", transport.why);
  drawList("remarks", transport.remarks);
  say(get("next-title"), runner_up.name);
  drawList("next-why", runner_up.why);
  drawList("next-remarks", runner_up.remarks);
  get("starts").replaceChildren(...starts.map(({ language, code }) => listing(LANGUAGES[language] ?? language, code)));
  get("measured").hidden = !run;
  if (run) {
    say(get("measured-about"), aboutOf(run));
    drawFigures(rules, run, [transport.key, runner_up.key], get("measured-head"), get("measured-rows"));
  }
  get("others").replaceChildren(
    ...Object.entries(against).flatMap(([key, why]) => {
      const name = rules.transports.find((each) => each.key === key)?.name ?? key;
      return [element("dt", "", name), element("dd", "", why)];
    }),
  );
}

/** @param {string} path */
async function load(path) {
  const response = await fetch(new URL(path, document.baseURI));
  if (!response.ok) throw new Error(`${path}: the server answered ${response.status}`);
  return response.json();
}

async function begin() {
  /** @type {Rules} */
  const rules = await load("advise/rules.json");
  const run = await load("advise/figures.json").catch(() => undefined); // the advice is as good without
  const draw = () => {
    const answers = answersOfAddress(rules);
    drawQuestions(rules, answers);
    drawAnswer(rules, answers, run);
  };
  get("questions").addEventListener("change", () => {
    const answers = Object.fromEntries(new FormData(get("questions")));
    history.replaceState(null, "", `#${new URLSearchParams(/** @type {Answers} */ (answers))}`);
    drawAnswer(rules, /** @type {Answers} */ (answers), run);
  });
  get("questions").addEventListener("submit", (/** @type {SubmitEvent} */ event) => event.preventDefault());
  addEventListener("hashchange", draw);
  draw();
}

begin().catch((error) => say(get("take-title"), `The rules could not be loaded. ${error.message}`));
