/**
 * Writes values in capitals.
 *
 * In: events whose values are text. Out: the same events, in capitals. Aside: events without a value, and values that are no text.
 */
const decoder = new TextDecoder('utf-8', { fatal: true });
const encoder = new TextEncoder();

export const transformer = {
  process(input, out) {
    const events = [];
    input.events().forEach((event, row) => {
      try {
        if (event.value === undefined) throw new Error('the event has no value');
        events.push({ ...event, value: encoder.encode(decoder.decode(event.value).toUpperCase()) });
      } catch (why) {
        out.reject(row, String(why.message));
      }
    });
    if (events.length > 0) out.emit('', events);
  },
};
