/**
 * Bytes on the wire, as far as a page can know them.
 *
 * Exact are the bodies of answers, the text of messages and the headers of WebSocket frames. A page cannot see the
 * headers that its browser sends, the handshake of a WebSocket or the pieces that a stream came in; those are estimated
 * here, as HTTP/1.1 would write them. Not counted: TCP and IP, TLS, compression and HTTP/2's (all of which make it less
 * or more for each lane alike).
 */

const encoder = new TextEncoder();

/** What a browser adds to a request: Host, Accept*, Referer, Sec-*, Connection. Typical of today's browsers. */
const REQUEST_FIELDS = 420;

/** Bytes of `text` in UTF-8. @param {string} text */
export function utf8(text) {
  return encoder.encode(text).length;
}

/** About what a GET of this address weighs: request line, User-Agent, the rest. @param {URL} url */
export function requestSize(url) {
  return `GET ${url.pathname}${url.search} HTTP/1.1\r\n`.length + navigator.userAgent.length + REQUEST_FIELDS;
}

/** About what the status line and the headers of an answer weigh. @param {Response} response */
export function headSize(response) {
  let size = "HTTP/1.1 200 OK\r\n\r\n".length;
  for (const [name, value] of response.headers) size += name.length + value.length + 4;
  return size;
}

/**
 * The bytes of an answer's body as they came: compressed, if a proxy compressed them. The browser's own books
 * (PerformanceResourceTiming) know; where they have no entry yet, it is the body as it was read.
 * @param {URL} url
 * @param {number} read
 */
export function bodySize(url, read) {
  const entries = performance.getEntriesByName(url.href, "resource");
  const newest = /** @type {PerformanceResourceTiming | undefined} */ (entries.at(-1));
  // The book has 250 lines, after which it takes no more: a page that polls has to tear them out.
  if (entries.length > 0) performance.clearResourceTimings();
  // It says 0 where it is not told, and an older entry of the same address has another body.
  return newest && newest.transferSize > 0 && newest.decodedBodySize === read ? newest.encodedBodySize : read;
}

/** The header of a frame from the server (RFC 6455, section 5.2). @param {number} payload */
export function frameHead(payload) {
  if (payload < 126) return 2;
  return payload < 65536 ? 4 : 10;
}

/** The header of a frame to the server: those are masked. @param {number} payload */
export function maskedFrameHead(payload) {
  return frameHead(payload) + 4;
}

/** A stream's opening answer, and what the chunk around one event takes (RFC 9112, section 7.1). */
export const STREAM_HEAD = 250;
export const CHUNK = 7;

/** The answer to a WebSocket's handshake, and what its request has over a GET: Upgrade, Key, Version, Protocol. */
export const HANDSHAKE_ANSWER = 250;
export const HANDSHAKE_FIELDS = 220;
