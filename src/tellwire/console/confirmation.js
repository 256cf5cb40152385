/** What an operator does to others is asked about once more, in words that say what will happen. */

import { get, reason, say } from "./elements.js";
import { order } from "./lanes/wire.js";

export class Confirmation {
  /** @type {() => Promise<unknown>} */
  #act = () => Promise.resolve();

  /** @param {() => void} ondone */
  constructor(ondone) {
    this.ondone = ondone;
    this.dialog = /** @type {HTMLDialogElement} */ (get("confirm"));
    get("confirm-no").addEventListener("click", () => this.dialog.close());
    get("confirm-yes").addEventListener("click", () => void this.#do());
  }

  /** @param {string} client @param {string} who */
  disconnect(client, who) {
    get("confirm-back-field").hidden = false;
    get("confirm-reason-field").hidden = false;
    get("confirm-back").checked = true;
    get("confirm-reason").value = "";
    this.#ask(
      `Disconnect ${who}?`,
      `All connections of client ${client} are closed, on all nodes.`,
      "Disconnect",
      () => {
        const reconnect = get("confirm-back").checked;
        return order("v1/admin/disconnect", { client, reason: get("confirm-reason").value.trim(), reconnect });
      },
    );
  }

  /** @param {string} user */
  revoke(user) {
    get("confirm-back-field").hidden = true;
    get("confirm-reason-field").hidden = true;
    this.#ask(
      `Revoke the tokens of ${user}?`,
      "Every token of this user that was made up to now is refused from now on, and its connections are closed, on " +
        "all nodes. This cannot be taken back; a fresh token lets the user in again.",
      "Revoke",
      () => order("v1/admin/revoke", { user }),
    );
  }

  /** @param {string} title @param {string} text @param {string} verb @param {() => Promise<unknown>} act */
  #ask(title, text, verb, act) {
    this.#act = act;
    say(get("confirm-title"), title);
    say(get("confirm-text"), text);
    say(get("confirm-yes"), verb);
    say(get("confirm-complaint"), "");
    this.dialog.showModal();
    get("confirm-no").focus();
  }

  async #do() {
    get("confirm-yes").disabled = true;
    try {
      await this.#act();
      this.dialog.close();
      this.ondone();
    } catch (error) {
      say(get("confirm-complaint"), `Not done: ${reason(error)}`);
    } finally {
      get("confirm-yes").disabled = false;
    }
  }
}
