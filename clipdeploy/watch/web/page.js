"use strict";
if (location.search) history.replaceState(null, "", location.pathname); // the token is kept in a cookie by now
const $ = (id) => document.getElementById(id);
const make = (tag, text, name) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
};
const percent = (part) => (100 * part).toFixed(part > 0.0995 || part === 0 ? 0 : 1) + " %";
let chosen = 0, dirty = false, news = null, over = false, lost = false, known = "";

// the picture: opened again when it breaks off
function look() {
  $("picture").src = "/picture?camera=" + chosen + "&at=" + Date.now();
}
$("picture").addEventListener("load", () => { $("picture").classList.add("there"); $("blank").hidden = true; });
$("picture").addEventListener("error", () => { if (!over) setTimeout(look, 2000); });

function drawCameras(cameras) {
  const names = JSON.stringify(cameras.map((camera) => camera.name));
  if (names !== known) {
    known = names;
    $("cameras").hidden = cameras.length < 2;
    $("cameras").replaceChildren(...cameras.map((camera, number) => {
      const button = make("button", camera.name);
      button.type = "button";
      button.addEventListener("click", () => {
        chosen = number;
        $("picture").classList.remove("there");
        $("blank").hidden = false;
        look();
        if (news) draw(news);
      });
      return button;
    }));
  }
  [...$("cameras").children].forEach((button, number) => button.setAttribute("aria-pressed", String(number === chosen)));
}

function drawState(camera) {
  let text = camera.state, mood = camera.state === "running" ? "good" : camera.state === "failed" ? "bad" : "";
  if (camera.state === "ended") mood = "still";
  if (camera.error && (camera.state === "failed" || camera.state === "waiting to reconnect")) text += ": " + camera.error;
  if (over) [text, mood] = ["the stream has ended", "still"];
  if (lost) [text, mood] = ["connection lost", "bad"];
  if ($("state").textContent !== text) $("state").textContent = text;
  $("state").className = "pill " + mood;
}

function drawSaid(camera) {
  const key = JSON.stringify(camera.present);
  if ($("said").dataset.key === key) return; // it is read aloud: only what is new
  $("said").dataset.key = key;
  const words = camera.present.map((label) => make("b", label));
  $("said").replaceChildren(...(words.length ? words : [make("span", "none of these")]));
}

function drawBars(bars) {
  const list = $("bars"), labels = JSON.stringify(bars.map((bar) => bar.label));
  if (list.dataset.labels !== labels) {
    list.dataset.labels = labels;
    list.replaceChildren(...bars.map((bar) => {
      const row = make("li"), track = make("div", undefined, "track");
      track.setAttribute("role", "meter");
      track.setAttribute("aria-label", bar.label);
      track.setAttribute("aria-valuemin", "0");
      track.setAttribute("aria-valuemax", "100");
      track.append(make("div", undefined, "fill"));
      const name = make("span", bar.label, "name");
      name.title = bar.label;
      row.append(name, make("span", "", "value"), track);
      return row;
    }));
  }
  bars.forEach((bar, number) => {
    const [, value, track] = list.children[number].children;
    list.children[number].className = bar.present ? "here" : "";
    value.textContent = (bar.present && bar.seconds !== null ? bar.seconds + " s · " : "") + percent(bar.probability);
    track.setAttribute("aria-valuenow", String(Math.round(100 * bar.probability)));
    track.firstChild.style.transform = "scaleX(" + bar.probability + ")";
  });
}

function drawFigures(state, camera) {
  const figures = [
    ["Frames / s", camera.fps.toFixed(1)],
    ["Latency p50", state.latency_ms[0].toFixed(0), "ms"],
    ["Latency p95", state.latency_ms[1].toFixed(0), "ms"],
    ["Answered", camera.answered],
    ["Unchanged", camera.repeated],
    ["Dropped", camera.dropped],
  ];
  if (camera.failed) figures.push(["Failed", camera.failed]);
  if (camera.reconnects) figures.push(["Reconnects", camera.reconnects]);
  if (state.lost) figures.push(["Events lost", state.lost]);
  $("figures").replaceChildren(...figures.map(([name, value, unit]) => {
    const pair = make("div"), number = make("dd", String(value));
    if (unit) number.append(" ", make("small", unit));
    pair.append(make("dt", name), number);
    return pair;
  }));
}

function drawEvents(state) {
  for (const event of state.events) {
    const line = make("li", undefined, event.kind), words = make("span");
    words.append(make("b", event.label), " " + event.kind + (event.seconds === null ? "" : " after " + event.seconds + " s"));
    if (state.cameras.length > 1) words.append(" · " + event.camera);
    line.append(make("time", event.time), words);
    $("events").querySelector(".none")?.remove();
    $("events").prepend(line);
    while ($("events").children.length > 60) $("events").lastChild.remove();
  }
}

function draw(state) {
  const camera = state.cameras[chosen];
  if (!camera) return;
  over = state.over;
  drawCameras(state.cameras);
  drawState(camera);
  drawSaid(camera);
  drawBars(camera.bars);
  drawFigures(state, camera);
  if (camera.size) $("frame").style.aspectRatio = camera.size[0] + " / " + camera.size[1];
  if (!dirty && document.activeElement !== $("labels")) $("labels").value = state.labels.join("\n");
}

function listen() {
  const source = new EventSource("/news");
  source.onmessage = (message) => {
    const back = lost;
    lost = false;
    news = JSON.parse(message.data);
    if (news.events.length) drawEvents(news);
    draw(news);
    news.events = [];
    if (news.over) source.close();
    else if (back) look();
  };
  source.onopen = () => $("events").replaceChildren(make("li", "nothing yet", "none")); // it tells all of them again
  source.onerror = () => {
    lost = true;
    if (news) draw(news);
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  };
}

function tell(text, mood) {
  $("message").textContent = text;
  $("message").className = mood;
}

async function send() {
  const button = $("form").querySelector("button");
  button.disabled = true;
  tell("", "");
  try {
    const answer = await fetch("/labels", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ text: $("labels").value }),
    });
    const said = await answer.json();
    if (answer.ok) {
      dirty = false;
      $("labels").value = said.labels.join("\n");
      tell("Watching for " + said.labels.length + (said.labels.length === 1 ? " label" : " labels"), "good");
      setTimeout(() => { if ($("message").className === "good") tell("", ""); }, 4000);
    } else {
      tell(said.error.message + (said.error.fix ? "\n" + said.error.fix : ""), "bad");
    }
  } catch (error) {
    tell("The device does not answer: " + error.message, "bad");
  }
  button.disabled = false;
}

$("labels").addEventListener("input", () => { dirty = true; });
$("labels").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); send(); }
});
$("form").addEventListener("submit", (event) => { event.preventDefault(); send(); });
if (document.body.dataset.change === "no") {
  $("labels").readOnly = true;
  $("form").querySelector("button").hidden = true;
  $("hint").textContent = "They are baked into this bundle.";
}
look();
listen();
