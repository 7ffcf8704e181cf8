/**
 * Counts the events of each group: those with one key.
 *
 * A reader is shown `{"count":17}`; when a window closes, that is emitted with the group as the key and the end of the window as the
 * time.
 */
const decoder = new TextDecoder();
const encoder = new TextEncoder();

/** A column as a list, where null is a null. */
const elements = ({ offsets, data, validity }) => {
  const all = [];
  for (let row = 0; row + 1 < offsets.length; row += 1) {
    const isNull = validity.length > 0 && ((validity[row >> 3] >> (row & 7)) & 1) === 0;
    all.push(isNull ? null : data.slice(offsets[row], offsets[row + 1]));
  }
  return all;
};

/** A list as a column without nulls. */
const column = (all) => {
  const offsets = new Uint32Array(all.length + 1);
  all.forEach((element, row) => { offsets[row + 1] = offsets[row] + element.length; });
  const data = new Uint8Array(offsets[all.length]);
  all.forEach((element, row) => data.set(element, offsets[row]));
  return { offsets, data, validity: new Uint8Array() };
};

const counts = (accumulators) =>
  elements(accumulators).map((bytes) => (bytes === null ? 0n : BigInt(decoder.decode(bytes))));
const written = (all) => column(all.map((count) => encoder.encode(count.toString())));

export const aggregator = {
  accumulate(input, groups, members, out) {
    const all = counts(groups.accumulators);
    members.groups.forEach((group) => { all[group] += 1n; });
    return written(all);
  },
  merge(left, right) {
    const other = counts(right);
    return written(counts(left).map((count, at) => count + other[at]));
  },
  finish(closed, out) {
    const shown = elements(aggregator.render(closed));
    const events = elements(closed.keys).map((key, at) => (
      { id: undefined, key, value: shown[at], headers: [], timestamp: closed.windowEnds[at] }));
    out.emit('', events);
  },
  render(groups) {
    return column(counts(groups.accumulators).map((count) => encoder.encode(`{"count":${count}}`)));
  },
};
