// Talking to the kernel: one request at a time, and of each kind only the newest waits.

function makeRequests(model, settled) {
  let id = Math.floor(Math.random() * 1e6) * 1000;
  let inFlight = null;
  let waiting = new Map();
  let movedAt = null;
  const log = { sent: 0, answered: 0, latencies: [] };

  function ask(event, mergeKey = event.kind) {
    movedAt = performance.now();
    const before = waiting.get(mergeKey);
    waiting.set(mergeKey, before && event.kind === "change" ? merged(before, event) : event);
    next();
  }

  // Changes of other neurons that still wait are kept; of one neuron only the newest.
  function merged(before, event) {
    const each = new Map(before.changes.map((change) => [`${change[0]} ${change[1]}`, change]));
    for (const change of event.changes) each.set(`${change[0]} ${change[1]}`, change);
    return { ...event, changes: [...each.values()] };
  }

  function next() {
    if (inFlight !== null || waiting.size === 0 || model.frozen) return;
    const [key, event] = waiting.entries().next().value;
    waiting.delete(key);
    id += 1;
    inFlight = id;
    log.sent += 1;
    model.send({ ...event, id });
    settled(false);
  }

  // Not a request: it must reach the kernel while another one waits.
  function stop() {
    model.send({ kind: "stop" });
  }

  function answered(reply) {
    if (reply !== inFlight) return;
    inFlight = null;
    log.answered += 1;
    next();
    if (inFlight !== null || movedAt === null) return;
    const since = movedAt;
    movedAt = null;
    // After the next frame has been drawn: what the reader waited for is then on the screen.
    requestAnimationFrame(() => setTimeout(() => {
      log.latencies.push(performance.now() - since);
      settled(true, log.latencies[log.latencies.length - 1]);
    }, 0));
  }

  return { ask, stop, answered, log, waits: () => inFlight !== null };
}
