"use strict";
// Asks the API and shows what it says. Prices stay the strings they are, filled up to the decimals of their symbol.

const row = (id, name) => {
  const body = document.querySelector(`#${id} tbody`);
  let tr = body.querySelector(`[data-name="${CSS.escape(name)}"]`);
  if (!tr) {
    tr = body.insertRow();
    tr.dataset.name = name;
    const th = document.createElement("th");
    th.scope = "row";
    th.textContent = name;
    tr.append(th);
    const columns = document.querySelector(`#${id} thead tr:last-child`).cells;
    for (const column of [...columns].slice(1)) tr.insertCell().className = column.textContent.trim();
  }
  return tr;
};
const put = (tr, column, text) => {
  const cell = tr.querySelector(`.${column}`);
  const shown = text === null || text === undefined || text === "" ? "–" : String(text);
  if (cell.textContent !== shown) cell.textContent = shown;
  return cell;
};
const ask = async (path) => {
  const answer = await fetch(path, { signal: AbortSignal.timeout(8000) });
  const body = await answer.json();
  if (!answer.ok && path !== "/api/health") throw new Error(body.detail || `${path}: ${answer.status}`);
  return body;
};

const places = {}; // symbol → most decimals seen
const price = (symbol, text) => {
  if (!text) return null;
  const fraction = text.split(".")[1] || "";
  places[symbol] = Math.max(places[symbol] || 0, fraction.length);
  const missing = places[symbol] - fraction.length;
  return missing ? `${text}${fraction ? "" : "."}${"0".repeat(missing)}` : text;
};
const rounded = (symbol, text) => (text ? Number(text).toFixed(Math.min(6, (places[symbol] || 0) + 1)) : null);
const age = (ms) => (ms === null ? null : ms < 1000 ? "now" : ms < 100000 ? `${Math.round(ms / 1000)} s` : ms < 6e6 ? `${Math.round(ms / 60000)} min` : `${Math.round(ms / 36e5)} h`);

function showTick(cell, before, now) {
  if (before === undefined || before === now || now === null) return;
  cell.classList.remove("up", "down", "ticked");
  void cell.offsetWidth; // so that the same colour can begin anew
  cell.classList.add(Number(now) > Number(before) ? "up" : "down", "ticked");
}

const last = {};
async function showQuotes() {
  const answer = await ask("/api/quotes");
  for (const q of answer.quotes) {
    const tr = row("instruments", q.symbol);
    for (const name of ["last", "bid", "ask"]) put(tr, name, price(q.symbol, q[name]));
    put(tr, "spread", price(q.symbol, q.spread));
    put(tr, "age", age(q.age_ms));
    tr.classList.toggle("stale", q.quality !== "live");
    showTick(tr.querySelector(".last"), last[q.symbol], q.last);
    last[q.symbol] = q.last;
  }
  document.getElementById("as-of").textContent = answer.as_of ? `${answer.as_of.slice(0, 19).replace("T", "  ")} UTC` : "no quote yet";
}

async function showBars() {
  const today = await ask("/api/vwap/today");
  for (const value of today.values) {
    put(row("instruments", value.symbol), "VWAP", rounded(value.symbol, value.vwap));
  }
  await Promise.all(today.values.map(async ({ symbol }) => {
    const { intraday_latest: bar } = await ask(`/api/session?market=USA&future=${encodeURIComponent(symbol)}`);
    if (!bar) return;
    const tr = row("instruments", symbol);
    put(tr, "from", bar.ts.slice(11, 16));
    for (const name of ["open", "high", "low", "close"]) put(tr, name, price(symbol, bar[name]));
    put(tr, "volume", bar.volume).classList.toggle("warn", bar.quality === "gap");
  }));
}

async function showHealth() {
  const health = await ask("/api/health");
  for (const p of [...health.servers, ...health.processes]) {
    const tr = row("processes", p.name);
    put(tr, "state", p.state).classList.toggle("bad", !p.healthy);
    const beat = p.heartbeat_age_s ?? null;
    put(tr, "heartbeat", p.answered_ms ? `${p.answered_ms.toFixed(1)} ms` : beat === null ? null : `${beat.toFixed(1)} s`);
    put(tr, "lag", p.lag);
    put(tr, "committed", p.committed);
    put(tr, "why", p.why || " ");
  }
  const bad = [...health.servers, ...health.processes].filter((p) => !p.healthy).map((p) => p.name);
  say(bad.length ? `not healthy: ${bad.join(", ")}` : "all healthy", bad.length ? "bad" : "ok");
}

function say(text, name) {
  const line = document.getElementById("health");
  if (line.textContent !== text) line.textContent = text;
  line.className = name;
}

// Each repeats after its own answer, so that a slow one delays no other.
const repeat = async (show, pause) => {
  try {
    await show();
  } catch (error) {
    say(String(error.message || error), "bad");
  }
  setTimeout(repeat, document.hidden ? 5000 : pause, show, pause);
};
repeat(showQuotes, 1000).then(() => repeat(showBars, 2000));
repeat(showHealth, 2000);
