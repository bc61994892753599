"use strict";
// Asks the API once a second and shows what it says; numbers stay the strings they are.

const cell = (text, name) => {
  const td = document.createElement("td");
  td.textContent = text === null || text === undefined ? "–" : String(text);
  if (name) td.className = name;
  return td;
};
const fill = (id, rows) => document.querySelector(`#${id} tbody`).replaceChildren(...rows.map((cells) => {
  const tr = document.createElement("tr");
  tr.replaceChildren(...cells);
  return tr;
}));
const ask = async (path) => {
  const answer = await fetch(path, { signal: AbortSignal.timeout(8000) });
  const body = await answer.json();
  if (!answer.ok && path !== "/api/health") throw new Error(body.detail || answer.status);
  return body;
};
const age = (ms) => (ms === null ? null : ms < 10000 ? `${ms} ms` : `${Math.round(ms / 1000)} s`);
const since = (ts, minutes) => new Date(Date.parse(ts) - minutes * 60000).toISOString();

async function showQuotes() {
  const [quotes, vwap] = await Promise.all([ask("/api/quotes"), ask("/api/vwap/today").catch(() => ({ values: [] }))]);
  const average = Object.fromEntries(vwap.values.map((value) => [value.symbol, value.vwap]));
  const choice = document.getElementById("symbol");
  if (choice.options.length !== quotes.quotes.length) {
    const chosen = choice.value;
    choice.replaceChildren(...quotes.quotes.map((quote) => new Option(quote.symbol, quote.symbol)));
    if (chosen) choice.value = chosen;
  }
  fill("quotes", quotes.quotes.map((q) => [
    cell(q.symbol), cell(q.last), cell(q.bid), cell(q.ask), cell(q.volume), cell(average[q.symbol]),
    cell(age(q.age_ms)), cell(q.source), cell(q.quality, q.quality),
  ]));
  return quotes.as_of;
}

async function showBars(asOf) {
  const symbol = document.getElementById("symbol").value;
  if (!symbol || !asOf) return;
  const answer = await ask(`/api/bars?symbol=${encodeURIComponent(symbol)}&from=${since(asOf, 15)}`);
  fill("bars", answer.bars.reverse().map((b) => [
    cell(b.ts.slice(0, 16).replace("T", " ")), cell(b.open), cell(b.high), cell(b.low), cell(b.close), cell(b.volume),
    cell(b.vwap), cell(b.updates), cell(b.final ? b.quality : "running", b.quality),
  ]));
}

async function showHealth() {
  const health = await ask("/api/health");
  fill("health", [...health.processes, ...health.servers].map((p) => [
    cell(p.name), cell(p.healthy ? "yes" : "no", p.healthy ? "" : "no"), cell(p.state), cell(p.heartbeat_age_s),
    cell(p.lag), cell(p.why),
  ]));
}

async function show() {
  const line = document.getElementById("as-of");
  const health = showHealth().catch(() => {});
  try {
    const asOf = await showQuotes();
    line.textContent = asOf ? `as of ${asOf}` : "no quote yet";
    await showBars(asOf);
  } catch (error) {
    line.textContent = String(error.message || error);
  }
  await health;
  setTimeout(show, 1000);
}
show();
