"""Counts the events of each group: those with one key.

A reader is shown `{"count": 17}`; when a window closes, that is emitted with the group as the key and the end of the window as
the time.
"""

import json

from wit_world import exports
from wit_world.exports import aggregator
from wit_world.imports import types


def elements(column: types.BytesColumn) -> list[bytes | None]:
    """A column as a list, where None is a null."""
    ends = zip(column.offsets, column.offsets[1:])
    valid = column.validity
    return [
        None if valid and not valid[row // 8] >> row % 8 & 1 else column.data[start:end]
        for row, (start, end) in enumerate(ends)
    ]


def column(elements: list[bytes]) -> types.BytesColumn:
    """A list as a column without nulls."""
    offsets = [0]
    for element in elements:
        offsets.append(offsets[-1] + len(element))
    return types.BytesColumn(offsets=offsets, data=b"".join(elements), validity=b"")


def counts(accumulators: types.BytesColumn) -> list[int]:
    return [0 if bytes is None else int(bytes) for bytes in elements(accumulators)]


class Aggregator(exports.Aggregator):
    def accumulate(
        self, input: types.Batch, groups: aggregator.Groups, members: aggregator.Membership, out: types.Collector
    ) -> types.BytesColumn:
        new = counts(groups.accumulators)
        for group in members.groups:
            new[group] += 1
        return column([str(count).encode() for count in new])

    def merge(self, left: types.BytesColumn, right: types.BytesColumn) -> types.BytesColumn:
        return column([str(a + b).encode() for a, b in zip(counts(left), counts(right))])

    def finish(self, closed: aggregator.Groups, out: types.Collector) -> None:
        shown = elements(self.render(closed))
        ends = list(closed.window_ends) or [None] * len(shown)
        keys = elements(closed.keys)
        out.emit("", [types.Event(None, key, value, [], end) for key, value, end in zip(keys, shown, ends)])

    def render(self, groups: aggregator.Groups) -> types.BytesColumn:
        return column([json.dumps({"count": count}).encode() for count in counts(groups.accumulators)])
