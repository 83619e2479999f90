// The bar of stages: where the time of an answer went, read from its Server-Timing header.

const byId = (id) => document.getElementById(id);

// "decode;dur=12.4, total;dur=23" -> [["decode", 12.4], ["total", 23]]
export function parseServerTiming(header) {
  return (header ?? "")
    .split(",")
    .map((entry) => /^\s*([\w-]+)\s*;.*?\bdur=([\d.]+)/.exec(entry))
    .filter(Boolean)
    .map(([, stage, milliseconds]) => [stage, Number(milliseconds)]);
}

export function showTiming(header, batchSize) {
  const times = parseServerTiming(header);
  const stages = times.filter(([stage]) => stage !== "total");
  const total = times.find(([stage]) => stage === "total")?.[1];
  byId("timing").hidden = total === undefined;
  if (total === undefined) {
    return;
  }
  const shared = batchSize > 1 ? `, in a batch of ${batchSize}` : "";
  byId("timing-total").textContent = `Answered in ${total.toFixed(1)} ms${shared}`;
  byId("timing-bar").replaceChildren(...stages.filter(([, spent]) => spent > 0).map(part));
  byId("timing-legend").replaceChildren(...stages.map(line));
}

function part([stage, milliseconds]) {
  const element = document.createElement("i");
  element.className = stage;
  element.style.flexGrow = milliseconds;
  return element;
}

function line([stage, milliseconds]) {
  const element = document.createElement("div");
  element.className = stage;
  const term = document.createElement("dt");
  term.textContent = stage;
  const value = document.createElement("dd");
  value.textContent = `${milliseconds.toFixed(1)} ms`;
  element.append(term, value);
  return element;
}
