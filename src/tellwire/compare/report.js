"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const report = JSON.parse(byId("report").textContent);
  const settings = report.settings;
  const shownReaders = settings.readers[Math.floor(settings.readers.length / 2)];
  const size = settings.payload_bytes[Math.min(1, settings.payload_bytes.length - 1)];
  const hues = ["poll", "longpoll", "sse", "ndjson", "websocket", "websocket-msgpack", "grpc", "webrtc"];
  const wires = Object.entries(report.transports).map(([key, wire], place) => ({
    ...wire,
    key,
    hue: `var(--c${Math.max(0, hues.indexOf(key)) || place % 8 * Number(hues.indexOf(key) < 0)})`,
    isShown: true,
  }));

  function byId(id) {
    return document.getElementById(id);
  }

  function plural(count) {
    return count === 1 ? "1 reader" : `${count} readers`;
  }

  /** Write a number in about three digits. */
  function brief(value) {
    if (value === null || value === undefined) return "–";
    if (Math.abs(value) >= 100) return Math.round(value).toLocaleString("en");
    return String(Number(value.toPrecision(value < 0.1 ? 1 : 3)));
  }

  function isMarked(figure) {
    return Boolean(figure && figure.load && figure.load.bottleneck);
  }

  function withMark(text, figure) {
    return isMarked(figure) ? `${text}*` : text;
  }

  function at(entries, name, value) {
    return (entries || []).find((entry) => entry[name] === value);
  }

  function element(name, attributes = {}, text = "", parent = null) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
    made.textContent = text;
    if (parent) parent.append(made);
    return made;
  }

  function html(name, text = "", parent = null) {
    const made = document.createElement(name);
    made.textContent = text;
    if (parent) parent.append(made);
    return made;
  }

  /** Show a text beside the pointer while it is over a mark. */
  function explain(mark, text) {
    const tip = byId("tip");
    mark.addEventListener("pointermove", (event) => {
      tip.textContent = text;
      tip.hidden = false;
      const left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
      const below = event.clientY + 18 + tip.offsetHeight < window.innerHeight;
      tip.style.left = `${Math.max(8, left)}px`;
      tip.style.top = `${below ? event.clientY + 16 : event.clientY - tip.offsetHeight - 12}px`;
    });
    mark.addEventListener("pointerleave", () => {
      tip.hidden = true;
    });
    element("title", {}, text, mark);
  }

  /** A scale of powers of ten, from what is there. */
  function logarithmic(values, from, to) {
    const positive = values.filter((value) => value > 0);
    const low = Math.log10(Math.min(...positive)) - 0.06;
    const high = Math.max(Math.log10(Math.max(...positive)) + 0.06, low + 0.3);
    const scale = (value) => from + ((Math.log10(Math.max(value, 10 ** low)) - low) / (high - low)) * (to - from);
    const span = high - low;
    const steps = span > 2.2 ? [1] : span > 1.1 ? [1, 3] : span > 0.6 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 7];
    const ticks = [];
    for (let power = Math.floor(low); power <= Math.ceil(high); power += 1) {
      for (const step of steps) {
        const value = step * 10 ** power;
        if (Math.log10(value) >= low && Math.log10(value) <= high) ticks.push(value);
      }
    }
    return { scale, ticks };
  }

  function linear(values, from, to) {
    const top = Math.max(...values, 1e-9) * 1.04;
    const step = [1, 2, 5, 10, 20, 50].map((each) => each * 10 ** Math.floor(Math.log10(top) - 1)).find((each) => top / each <= 6);
    const ticks = [];
    for (let value = 0; value <= top; value += step) ticks.push(value);
    return { scale: (value) => from + (value / top) * (to - from), ticks };
  }

  /** Make an empty drawing as wide as its place, or say that there is nothing to draw. */
  function drawing(id, height, rows) {
    const place = byId(id);
    place.replaceChildren();
    if (!rows.length) {
      html("p", "Nothing of it was measured.", place).className = "none";
      return null;
    }
    const width = Math.max(260, place.clientWidth);
    const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img" });
    place.append(svg);
    return { svg, width, height };
  }

  function axisBelow({ svg, width }, scale, ticks, top, bottom, unit) {
    const last = ticks.length - 1;
    const lastText = `${brief(ticks[last])} ${unit}`;
    const lastEnd = Math.min(scale(ticks[last]) + 16, width);
    let free = -Infinity;
    ticks.forEach((value, place) => {
      const x = scale(value);
      element("line", { class: "grid", x1: x, x2: x, y1: top, y2: bottom }, "", svg);
      if (place === last) {
        element("text", { x: lastEnd, y: bottom + 17, "text-anchor": "end" }, lastText, svg);
        return;
      }
      const text = brief(value);
      const half = text.length * 3.4;
      if (x - half < free || x + half + 6 > lastEnd - lastText.length * 6.8) return;
      free = x + half + 6;
      element("text", { x, y: bottom + 17, "text-anchor": "middle" }, text, svg);
    });
  }

  function shown(has) {
    return wires.filter((wire) => wire.isShown && has(wire));
  }

  /** One row for each transport: its name, marks on one axis, and the figures in words. */
  function rows(id, list, unit, marksOf) {
    const roomy = byId(id).clientWidth > 640;
    const rowHeight = roomy ? 38 : 54;
    const plot = drawing(id, list.length * rowHeight + 26, list);
    if (!plot) return;
    const left = roomy ? 190 : 6;
    const right = plot.width - (roomy ? 190 : 6);
    const values = list.flatMap((wire) => marksOf(wire).map((mark) => mark.value)).filter((value) => value !== null);
    const { scale, ticks } = logarithmic(values, left, right);
    axisBelow(plot, scale, ticks, 2, list.length * rowHeight, unit);
    list.forEach((wire, place) => {
      const marks = marksOf(wire).filter((mark) => mark.value !== null && mark.value !== undefined);
      const y = place * rowHeight + (roomy ? rowHeight / 2 : rowHeight - 16);
      const words = marks.map((mark) => withMark(brief(mark.value), mark.figure)).join(" · ");
      element("text", { class: "name", x: 0, y: roomy ? y + 4 : y - 18 }, wire.title, plot.svg);
      element("text", { class: "value", x: plot.width, y: roomy ? y + 4 : y - 18, "text-anchor": "end" }, `${words} ${unit}`, plot.svg);
      const spots = marks.map((mark) => scale(mark.value));
      const group = element("g", {}, "", plot.svg);
      element("line", { x1: Math.min(...spots), x2: Math.max(...spots), y1: y, y2: y, stroke: wire.hue, "stroke-width": 9, "stroke-linecap": "round", opacity: 0.22 }, "", group);
      marks.forEach((mark, number) => {
        const x = spots[number];
        if (number === 0) element("circle", { cx: x, cy: y, r: 6, fill: wire.hue }, "", group);
        if (number === 1) element("circle", { cx: x, cy: y, r: 5.5, fill: "var(--panel)", stroke: wire.hue, "stroke-width": 2.5 }, "", group);
        if (number === 2) element("line", { x1: x, x2: x, y1: y - 8, y2: y + 8, stroke: wire.hue, "stroke-width": 3, "stroke-linecap": "round" }, "", group);
      });
      element("rect", { class: "hit", x: 0, y: place * rowHeight, width: plot.width, height: rowHeight }, "", group);
      explain(group, `${wire.title}\n${marks.map((mark) => `${mark.name} ${withMark(brief(mark.value), mark.figure)} ${unit}`).join("\n")}`);
    });
  }

  /** Lines over two axes. */
  function lines(id, list, pointsOf, { unitX, unitY, logX = false, logY = false, isNamed = false, tell }) {
    const plot = drawing(id, 300, list);
    if (!plot) return;
    const all = list.flatMap(pointsOf);
    const named = isNamed && plot.width > 420;
    const [left, right, top, bottom] = [52, plot.width - (named ? 178 : 14), 28, plot.height - 28];
    const across = (logX ? logarithmic : linear)(all.map((point) => point.x), left, right);
    const places = [...new Set(all.map((point) => point.x))].sort((one, other) => one - other);
    // Where only a few places were measured, those are what the axis has to name.
    if (places.length <= 8) across.ticks = places;
    const ends = [];
    const up = (logY ? logarithmic : linear)(all.map((point) => point.y), bottom, top);
    axisBelow(plot, across.scale, across.ticks, top, bottom, unitX);
    for (const value of up.ticks) {
      const y = up.scale(value);
      element("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }, "", plot.svg);
      element("text", { x: left - 8, y: y + 4, "text-anchor": "end" }, brief(value), plot.svg);
    }
    element("text", { x: 0, y: 12 }, unitY, plot.svg);
    for (const wire of list) {
      const points = pointsOf(wire);
      const path = points.map((point, number) => `${number ? "L" : "M"}${across.scale(point.x).toFixed(1)} ${up.scale(point.y).toFixed(1)}`);
      element("path", { class: "series", d: path.join(""), stroke: wire.hue }, "", plot.svg);
      ends.push({ wire, end: up.scale(points[points.length - 1].y) });
      for (const point of points) {
        const [cx, cy] = [across.scale(point.x), up.scale(point.y)];
        const group = element("g", {}, "", plot.svg);
        if (!point.isQuiet) element("circle", { cx, cy, r: 4, fill: isMarked(point) ? "var(--panel)" : wire.hue, stroke: wire.hue, "stroke-width": 2 }, "", group);
        element("circle", { class: "hit", cx, cy, r: 11 }, "", group);
        explain(group, `${wire.title}\n${withMark(tell(point), point)}`);
      }
    }
    if (named) nameEnds(plot.svg, ends, right, bottom);
  }

  /** Write beside the end of each line whose it is, as near as the others let it. */
  function nameEnds(svg, ends, x, bottom) {
    const apart = 16;
    ends.sort((one, other) => one.end - other.end);
    let free = -Infinity;
    for (const each of ends) {
      each.y = Math.max(each.end, free);
      free = each.y + apart;
    }
    // What was pushed out below goes up again, and takes along what is in its way.
    let limit = bottom + 4;
    for (const each of ends.slice().reverse()) {
      each.y = Math.min(each.y, limit);
      limit = each.y - apart;
    }
    for (const { wire, end, y } of ends) {
      element("path", { class: "leader", d: `M${x + 6} ${end}L${x + 16} ${y}`, stroke: wire.hue }, "", svg);
      element("text", { class: "end", x: x + 20, y: y + 4 }, wire.title, svg);
    }
  }

  /** One bar for each transport, of parts. */
  function bars(id, list, partsOf, unit, wordsOf) {
    const roomy = byId(id).clientWidth > 420;
    const rowHeight = roomy ? 36 : 50;
    const plot = drawing(id, list.length * rowHeight + 24, list);
    if (!plot) return;
    const left = roomy ? 186 : 0;
    const sums = list.map((wire) => partsOf(wire).reduce((sum, part) => sum + part.value, 0));
    const { scale, ticks } = linear(sums, left, plot.width - 70);
    axisBelow(plot, scale, ticks, 2, list.length * rowHeight, unit);
    list.forEach((wire, place) => {
      const y = place * rowHeight + (roomy ? 9 : 24);
      const group = element("g", {}, "", plot.svg);
      element("text", { class: "name", x: 0, y: roomy ? y + 13 : y - 7 }, wire.title, group);
      let sum = 0;
      for (const part of partsOf(wire)) {
        const x = scale(sum);
        sum += part.value;
        if (part.value > 0) element("rect", { x, y, width: Math.max(1, scale(sum) - x - 1), height: 18, rx: 3, fill: part.fill }, "", group);
      }
      element("text", { class: "value", x: scale(sum) + 6, y: y + 13 }, wordsOf(wire, sum), group);
      explain(group, `${wire.title}\n${partsOf(wire).map((part) => `${part.name} ${brief(part.value)} ${unit}`).join("\n")}`);
    });
  }

  function overhead(entry) {
    return entry.down.headers + entry.down.framing + entry.up.total;
  }

  function draw() {
    rows("latency", shown((wire) => wire.latency_ms && wire.latency_ms.count), "ms", (wire) => [
      { name: "half within", value: wire.latency_ms.p50, figure: wire.latency_ms },
      { name: "99 % within", value: wire.latency_ms.p99, figure: wire.latency_ms },
      { name: "99.9 % within", value: wire.latency_ms["p99.9"], figure: wire.latency_ms },
    ]);
    lines(
      "distribution",
      shown((wire) => wire.latency_ms && wire.latency_ms.count),
      (wire) => wire.latency_ms.quantiles.map(([share, ms]) => ({ x: Math.max(ms, 0.01), y: share * 100, isQuiet: true })),
      { unitX: "ms", unitY: "% of the messages", logX: true, tell: (point) => `${brief(point.y)} % within ${brief(point.x)} ms` },
    );
    bars(
      "weight",
      shown((wire) => at(wire.bytes, "payload_bytes", size)),
      (wire) => {
        const { down, up } = at(wire.bytes, "payload_bytes", size);
        return [
          { name: "payload", value: down.payload, fill: "var(--payload)" },
          { name: "framing", value: down.framing, fill: "var(--framing)" },
          { name: "HTTP heads", value: down.headers, fill: "var(--headers)" },
          { name: "asked for it", value: up.total, fill: "var(--up)" },
        ];
      },
      "bytes",
      (wire, sum) => withMark(brief(Math.round(sum)), at(wire.bytes, "payload_bytes", size)),
    );
    lines(
      "overhead",
      shown((wire) => wire.bytes && wire.bytes.length),
      (wire) => wire.bytes.map((entry) => ({ x: entry.payload_bytes, y: overhead(entry), load: entry.load })),
      { unitX: "bytes", unitY: "bytes beside the payload", logX: true, logY: true, isNamed: true, tell: (point) => `${brief(point.y)} bytes beside ${brief(point.x)} of payload` },
    );
    lines(
      "cost",
      shown((wire) => (wire.readers || []).some((entry) => entry.cpu_us_per_delivery !== null)),
      (wire) => wire.readers.filter((entry) => entry.cpu_us_per_delivery !== null)
        .map((entry) => ({ x: entry.readers, y: entry.cpu_us_per_delivery, load: entry.load })),
      { unitX: "readers", unitY: "µs of CPU for each delivery", logX: true, logY: true, isNamed: true, tell: (point) => `${brief(point.y)} µs each to ${plural(point.x)}` },
    );
    rows("begin", shown((wire) => wire.connect_ms), "ms", (wire) => [
      { name: "connected", value: wire.connect_ms.median, figure: wire.connect_ms },
      { name: "first message", value: wire.first_message_ms.median, figure: wire.first_message_ms },
      { name: "resumed", value: wire.resume_ms ? wire.resume_ms.median : null, figure: wire.resume_ms },
    ]);
    bars(
      "memory",
      shown((wire) => wire.memory_kib_per_connection?.median != null),
      (wire) => [{ name: "each", value: wire.memory_kib_per_connection.median, fill: wire.hue }],
      "KiB",
      (wire, sum) => withMark(brief(sum), wire.memory_kib_per_connection),
    );
  }

  function tell() {
    const { path } = settings;
    const way = [
      path.delay_ms ? `${brief(path.delay_ms)} ms more each way` : "",
      path.loss ? `${brief(path.loss * 100)} % of the segments lost` : "",
      path.bandwidth_bits_per_s ? `${brief(path.bandwidth_bits_per_s / 1e6)} Mbit/s` : "",
      path.no_websocket ? "a proxy that forbids upgrades" : "",
      path.buffering_proxy ? "a proxy that holds answers until they are whole" : "",
    ].filter(Boolean);
    const over = way.length ? `over a way with ${way.join(", ")}` : "over the way as it is";
    const server = report.server.is_own ? "a server of its own" : report.server.url;
    byId("where").textContent = `At ${server}, ${over}; ${report.started_at}, ${brief(report.took_s)} s, Tellwire ${report.version}.`;
    const { machine } = report;
    byId("machine").textContent = `${machine.cpu}, ${machine.cores} cores, ${machine.system}, Python ${machine.python}; load average ${machine.load_average ?? "unknown"} at the beginning.`;
    byId("latency-about").textContent = `From when a message was due until a reader had it: ${brief(settings.rate)} messages a second of ${size} bytes, to ${plural(shownReaders)}. The scale is logarithmic: ten times as late is the same step everywhere.`;
    byId("weight-about").textContent = `Bytes on the wire for ${size} bytes of payload to one reader, at ${brief(settings.rate)} messages a second.`;
    if (report.ended !== "complete") {
      byId("ended").textContent = `This is not everything: ${report.says}.`;
      byId("ended").hidden = false;
    }
    byId("unknown").textContent = report.unknown.map((each) => `Unknown: ${each}.`).join(" ");
    for (const wire of wires) {
      const line = html("li", "", byId("verdicts"));
      html("b", wire.title, line);
      const verdict = wire.status === "measured" && wire.path ? `${wire.path.verdict}: ${wire.path.says}` : `${wire.status === "unmeasured" ? "not measured" : wire.status}: ${wire.says}`;
      html("span", verdict, line).className = verdict.startsWith("open") ? "" : "warning";
    }
    if (report.fallback) {
      const line = html("li", "", byId("verdicts"));
      html("b", "Left to itself", line);
      html("span", report.fallback.says, line);
    }
  }

  function fillTable() {
    const columns = [
      ["connect ms", (wire) => [wire.connect_ms?.median, wire.connect_ms]],
      ["first ms", (wire) => [wire.first_message_ms?.median, wire.first_message_ms]],
      ["p50 ms", (wire) => [wire.latency_ms?.p50, wire.latency_ms]],
      ["p99 ms", (wire) => [wire.latency_ms?.p99, wire.latency_ms]],
      ["p99.9 ms", (wire) => [wire.latency_ms?.["p99.9"], wire.latency_ms]],
      ["resume ms", (wire) => [wire.resume_ms?.median, wire.resume_ms]],
      ["heads B", (wire) => [at(wire.bytes, "payload_bytes", size)?.down.headers, at(wire.bytes, "payload_bytes", size)]],
      ["framing B", (wire) => [at(wire.bytes, "payload_bytes", size)?.down.framing, at(wire.bytes, "payload_bytes", size)]],
      ["up B", (wire) => [at(wire.bytes, "payload_bytes", size)?.up.total, at(wire.bytes, "payload_bytes", size)]],
      ["CPU µs", (wire) => [at(wire.readers, "readers", shownReaders)?.cpu_us_per_delivery, at(wire.readers, "readers", shownReaders)]],
      ["memory KiB", (wire) => [wire.memory_kib_per_connection?.median, wire.memory_kib_per_connection]],
      ["limit /s", (wire) => [wire.latency_ms?.load.limit_per_s, null]],
      ["busy %", (wire) => [wire.latency_ms ? wire.latency_ms.load.cpu_share * 100 : null, null]],
    ];
    const table = byId("table");
    table.parentElement.tabIndex = 0;
    const head = html("tr", "", html("thead", "", table));
    for (const name of ["", ...columns.map(([name]) => name)]) html("th", name, head).scope = "col";
    const body = html("tbody", "", table);
    for (const wire of wires) {
      const row = html("tr", "", body);
      html("td", wire.title, row);
      for (const [, of] of columns) {
        const [value, figure] = of(wire);
        const cell = html("td", withMark(brief(value), figure), row);
        if (isMarked(figure)) cell.className = "marked";
      }
    }
  }

  for (const wire of wires) {
    const button = html("button", wire.title, byId("legend"));
    button.type = "button";
    button.style.setProperty("--hue", wire.hue);
    button.setAttribute("aria-pressed", String(Boolean(wire.connect_ms)));
    button.disabled = !wire.connect_ms;
    button.addEventListener("click", () => {
      wire.isShown = !wire.isShown;
      button.setAttribute("aria-pressed", String(wire.isShown));
      draw();
    });
  }
  tell();
  fillTable();
  draw();
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) {
      width = window.innerWidth;
      draw();
    }
  });
})();
