/** Codes after which coming back would bring the same answer. */
const FINAL = new Set(["unauthorized", "forbidden", "forbidden_origin", "revoked"]);
/** Codes of a server that is there, and asks to be left alone for a moment. */
const BUSY = new Set(["rate_limited", "unavailable", "draining", "too_many_connections"]);

/** @type {Record<number, string>} */
const BY_STATUS = { 401: "unauthorized", 403: "forbidden", 413: "too_large", 429: "rate_limited", 503: "unavailable" };
/** @type {Record<number, string>} */
const BY_CLOSE = { 1012: "draining", 1013: "unavailable", 4002: "expired", 4500: "unauthorized", 4502: "revoked" };

/**
 * What went wrong: `code` is one of the protocol's (spec/protocol.md, section 12), or one of the client's own:
 * `disconnected`, `timeout`, `closed`, `outbox_full`, `uncertain`.
 */
export class TellwireError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {{status?: number | undefined, closeCode?: number | undefined, head?: string | undefined,
   *   retryAfterMs?: number | undefined, cause?: unknown}} [more]
   */
  constructor(code, message, { status, closeCode, head, retryAfterMs, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "TellwireError";
    this.code = code;
    /** HTTP's status. */
    this.status = status;
    /** WebSocket's close code. */
    this.closeCode = closeCode;
    /** For `conflict`: the position of the channel's newest message. */
    this.head = head;
    /** When the server said to come back, in milliseconds from then. */
    this.retryAfterMs = retryAfterMs;
  }

  /** Whether it is of no use to connect again. */
  get isFinal() {
    const close = this.closeCode ?? 0;
    return FINAL.has(this.code) || close === 1000 || close === 1008 || (close >= 4500 && close < 5000);
  }

  /** Whether the server was reached, but takes nothing now: another transport would hear the same. */
  get isBusy() {
    return BUSY.has(this.code);
  }
}

/**
 * The error for a connection that the server closed.
 * @param {number} closeCode
 * @param {string} [reason]
 * @param {number} [retryAfterMs]
 */
export function closed(closeCode, reason, retryAfterMs) {
  const code = BY_CLOSE[closeCode] ?? (closeCode >= 4500 && closeCode < 5000 ? "forbidden" : "disconnected");
  return new TellwireError(code, reason || `the connection was closed (${closeCode})`, { closeCode, retryAfterMs });
}

/**
 * The error that the server put in a reply, a push or one of many answers.
 * @param {{code: string, message: string, head?: string, retry_after_ms?: number}} error
 */
export function told({ code, message, head, retry_after_ms }) {
  return new TellwireError(code, message, { head, retryAfterMs: retry_after_ms });
}

/**
 * The error that an HTTP answer stands for: problem+json (RFC 9457), or what a proxy made up.
 * @param {Response} response
 */
export async function refused(response) {
  const problem = await response.json().catch(() => ({}));
  const { status } = response;
  const code = problem.code ?? BY_STATUS[status] ?? (status < 500 ? "bad_request" : "internal");
  const told_s = Number(response.headers.get("retry-after") ?? NaN);
  return new TellwireError(code, problem.detail ?? `the server answered ${status}`, {
    status,
    head: problem.head,
    retryAfterMs: problem.retry_after_ms ?? (told_s >= 0 ? told_s * 1000 : undefined),
  });
}

/** @param {unknown} error @returns {TellwireError} */
export function asError(error) {
  if (error instanceof TellwireError) return error;
  return new TellwireError("disconnected", error instanceof Error ? error.message : String(error), { cause: error });
}
