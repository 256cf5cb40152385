import { element } from "./elements.js";

/**
 * Put a text where it can be pasted from; says whether that worked. Pages that came over plain HTTP from elsewhere have
 * no clipboard, so there the text is selected and copied as by hand.
 * @param {string} text
 */
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const focused = document.activeElement;
    const area = element("textarea", "hidden");
    area.value = text;
    document.body.append(area);
    area.select();
    const is = document.execCommand("copy");
    area.remove();
    if (focused instanceof HTMLElement) focused.focus(); // selecting took the keyboard away
    return is;
  }
}

/**
 * Let a button copy a text, and say so for a moment.
 * @param {HTMLButtonElement} button @param {() => string} text
 */
export function copies(button, text) {
  const name = button.textContent ?? "";
  const spoken = element("span", "hidden"); // the button's own name may be another than its text
  spoken.setAttribute("role", "status");
  button.after(spoken);
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  button.addEventListener("click", async () => {
    button.textContent = (await copied(text())) ? "Copied" : "Select it and copy";
    spoken.textContent = button.textContent;
    clearTimeout(timer);
    timer = setTimeout(() => {
      button.textContent = name;
      spoken.textContent = "";
    }, 2000);
  });
}

/**
 * Show lines of a program or a setting, with a button that copies them.
 * @param {string} about @param {string} code
 */
export function listing(about, code) {
  const root = element("div", "listing-code");
  const head = element("header", "");
  const button = element("button", "small-button", "Copy");
  button.type = "button";
  button.setAttribute("aria-label", `Copy: ${about}`);
  head.append(element("span", "", about), button);
  copies(button, () => code);
  const text = element("pre", "");
  text.tabIndex = 0; // it may be wider than the page, and has to be scrolled by keyboard, too
  text.setAttribute("role", "region");
  text.setAttribute("aria-label", about);
  text.append(element("code", "", code));
  root.append(head, text);
  return root;
}
