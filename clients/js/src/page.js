/**
 * What a browser tells of the network and of its page. In Node and in workers there is little or nothing of it.
 * @param {import("./connection.js").Connection} connection
 * @param {typeof globalThis | any} [scope]
 * @returns {() => void} Listens no more.
 */
export function watchPage(connection, scope = globalThis) {
  if (typeof scope.addEventListener !== "function") return () => {};
  const { document } = scope;
  /** @type {[any, string, () => void][]} */
  const listeners = [
    [scope, "offline", () => connection.suspend("the browser is offline")],
    [scope, "online", () => connection.resume()],
  ];
  if (document) {
    // A page that is kept for the way back must hold no connection; one that is frozen would not notice its end.
    listeners.push(
      [scope, "pagehide", () => connection.suspend("the page is put away")],
      [scope, "pageshow", () => connection.resume()],
      [document, "freeze", () => connection.suspend("the page is frozen")],
      [document, "resume", () => connection.resume()],
      [document, "visibilitychange", () => document.visibilityState === "visible" && connection.wake()],
    );
  }
  for (const [target, name, listener] of listeners) target.addEventListener(name, listener);
  return () => {
    for (const [target, name, listener] of listeners) target.removeEventListener(name, listener);
  };
}
