import { get } from "./elements.js";
import { credentials } from "./lanes/credentials.js";

/** The page's views, one of which is shown (WAI-ARIA: tabs); which one is kept over a reload. */
export class Tabs {
  #shown = "";

  /** @param {HTMLElement} root @param {(key: string) => void} onshow */
  constructor(root, onshow) {
    this.root = root;
    this.onshow = onshow;
    this.tabs = /** @type {HTMLButtonElement[]} */ ([...root.querySelectorAll("[role=tab]")]);
    for (const tab of this.tabs) tab.addEventListener("click", () => this.show(keyOf(tab)));
    root.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      const index = this.tabs.findIndex((tab) => keyOf(tab) === this.#shown);
      const step = event.key === "ArrowRight" ? 1 : -1;
      const next = this.tabs[(index + step + this.tabs.length) % this.tabs.length];
      this.show(keyOf(next));
      next.focus();
    });
  }

  /**
   * @param {string | undefined} key The view; left out, the one that was shown before.
   * @param {boolean} [isChoice] Whether there is more than one to choose from.
   */
  show(key, isChoice = true) {
    this.root.hidden = !isChoice;
    const wanted = isChoice ? (key ?? (credentials.view || "lanes")) : "lanes";
    if (wanted === this.#shown) return;
    this.#shown = wanted;
    if (isChoice) credentials.view = wanted;
    for (const tab of this.tabs) {
      const isShown = keyOf(tab) === wanted;
      tab.setAttribute("aria-selected", String(isShown));
      tab.tabIndex = isShown ? 0 : -1;
      get(tab.getAttribute("aria-controls") ?? "").hidden = !isShown;
    }
    this.onshow(wanted);
  }
}

/** @param {HTMLElement} tab */
function keyOf(tab) {
  return tab.id.replace("tab-", "");
}
