// A chart over time, and the same figures as a table for whoever reads rather than looks.
import uPlot from "uplot";
import { useEffect, useRef } from "preact/hooks";
import { Table } from "./ui.jsx";

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Each value from the beginning of its step to the end, so that one between two gaps has a length to be seen by. */
const twice = (values) => values.flatMap((value) => [value, value]);
const edges = (times, step) => times.flatMap((at) => [at, at + step]);

/** `series`: [name, css variable of its colour, values, value -> text]; `times` in seconds, `step` of them apart. */
export function Chart({ title, times, series, format, step }) {
  const place = useRef(null);
  useEffect(() => {
    const draw = () => {
      place.current.replaceChildren();
      const axis = { stroke: style("--quiet"), grid: { stroke: style("--line"), width: 1 }, ticks: { show: false }, font: `11px ${style("--sans")}` };
      const width = place.current.clientWidth;
      return new uPlot({
        width, height: 190, legend: { show: false }, cursor: { drag: { x: false, y: false } }, padding: [10, 8, 0, 0],
        scales: { x: { time: true }, y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
        axes: [{ ...axis, space: 70, size: 28, values: step >= 14400 ? "{MMM} {D}" : "{HH}:{mm}" }, { ...axis, size: 64, values: (_, values) => values.map(format) }],
        series: [{}, ...series.map(([label, colour]) => ({
          label, stroke: style(colour), fill: `${style(colour)}1f`, width: 2, points: { show: false },
        }))],
      }, [edges(times, step), ...series.map(([, , values]) => twice(values))], place.current);
    };
    let chart = draw();
    const again = () => {
      chart.destroy();
      chart = draw();
    };
    let seen = place.current.clientWidth;
    const resized = new ResizeObserver(() => {
      const width = place.current?.clientWidth;
      if (width && width !== seen) [seen] = [width, again()];
    });
    resized.observe(place.current);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", again);
    return () => {
      resized.disconnect();
      scheme.removeEventListener("change", again);
      chart.destroy();
    };
  }, [times, series, step]);
  const rows = times.map((at, place) => ({ at, place })).reverse();
  return (
    <figure class="chart">
      <figcaption>
        <span class="hidden">{title}</span>
        <span class="keys">{series.map(([name, colour]) => <span key={name}><i style={{ background: `var(${colour})` }} />{name}</span>)}</span>
      </figcaption>
      <div ref={place} class="plot" role="img" aria-label={`${title}: chart; the figures are in the table below`} />
      <details>
        <summary>Figures of this chart</summary>
        <Table caption={`${title}, by time`} rows={rows} rowKey={(row) => row.at} columns={[
          ["Time", ({ at }) => new Date(at * 1000).toLocaleString(undefined, { hourCycle: "h23" })],
          ...series.map(([name, , values, text]) => [name, ({ place }) => (values[place] == null ? "–" : (text ?? format)(values[place], place)), "number"]),
        ]} />
      </details>
    </figure>
  );
}
