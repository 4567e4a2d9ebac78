-- What every run prints at its end: one line of JSON, times in microseconds.

function done(summary, latency)
  io.write(string.format(
    '{"requests":%d,"duration":%d,"not_2xx":%d,"socket_errors":%d,"p50":%d,"p99":%d,"max":%d}\n',
    summary.requests, summary.duration, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(50), latency:percentile(99), latency.max))
end
