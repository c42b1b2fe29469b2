// The page is complete without this: it makes sliders of the pictures, and lets curves be read at any step.
document.documentElement.classList.add("js");

const choices = [...document.querySelectorAll(".which input")];
const stages = [...document.querySelectorAll(".stage")];

function chooseLayer() {
  const chosen = choices.findIndex((choice) => choice.checked);
  for (const stage of stages) {
    stage.querySelectorAll(".layer").forEach((layer, index) => { layer.classList.toggle("off", index !== chosen); });
  }
}
choices.forEach((choice) => choice.addEventListener("change", chooseLayer));
chooseLayer();

for (const stage of stages) {
  const slider = stage.querySelector(".slider");
  const cut = () => stage.style.setProperty("--cut", `${slider.value}%`);
  slider.addEventListener("input", cut);
  cut();
}

for (const figure of document.querySelectorAll(".chart")) {
  const svg = figure.querySelector(":scope > svg");
  const { width, height } = svg.viewBox.baseVal;
  const [left, right, top, bottom] = figure.dataset.margins.split(" ").map(Number);
  const [highest, steps] = [Number(figure.dataset.top), Number(figure.dataset.steps)];
  const lines = [...svg.querySelectorAll(".line")].map((path) =>
    [...path.getAttribute("d").matchAll(/([\d.]+) ([\d.]+)/g)].map((place) => [Number(place[1]), Number(place[2])]));
  const outputs = [...figure.querySelectorAll("output")];
  const last = outputs.map((output) => output.textContent);
  const at = figure.querySelector(".at");
  const places = [...new Set(lines.flat().map((place) => place[0]))].sort((a, b) => a - b);
  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "path");
  cursor.setAttribute("class", "cursor");
  let shown = -1;

  const nearest = (line, x) => line.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
  const text = (y) => {
    const value = (highest * (height - bottom - y)) / (height - top - bottom);
    if ("percent" in figure.dataset) return `${(100 * value).toFixed(1)} %`;
    return value < 100 ? value.toPrecision(3) : value.toFixed(0);
  };
  function show(index) {
    shown = Math.min(Math.max(index, 0), places.length - 1);
    const x = places[shown];
    cursor.setAttribute("d", `M${x} ${top}V${height - bottom}`);
    svg.append(cursor);
    outputs.forEach((output, i) => { output.textContent = text(nearest(lines[i], x)[1]); });
    at.textContent = `at step ${Math.round(((x - left) / (width - left - right)) * steps)}`;
  }
  function leave() {
    shown = -1;
    cursor.remove();
    outputs.forEach((output, i) => { output.textContent = last[i]; });
    at.textContent = "";
  }
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * width;
    show(places.reduce((best, place, i) => (Math.abs(place - x) < Math.abs(places[best] - x) ? i : best), 0));
  });
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move) {
      event.preventDefault();
      show(shown < 0 ? (move > 0 ? 0 : places.length - 1) : shown + move);
    }
  });
  svg.tabIndex = 0;
}

addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
