-- What wrk sends: the request of the file BENCH_REQUEST (head lines, an empty line, the body), with an id of its own
-- each time, for gateways that share a session mix up equal ids.
local file = assert(io.open(os.getenv("BENCH_REQUEST"), "rb"))
local text = file:read("*a")
file:close()
local head, body = text:match("^(.-)\n\n(.*)$")
wrk.method = "POST"
for name, value in head:gmatch("([^:\n]+): ([^\n]*)") do wrk.headers[name] = value end
local before, after = body:match('^(.-"id":)1(,.*)$')
local count = 0
function request()
  count = count + 1
  return wrk.format(nil, nil, nil, before .. count .. after)
end
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("FIGURES %f %f %f %d %d %d\n", summary.requests / (summary.duration / 1e6),
    latency:percentile(50), latency:percentile(99), summary.requests, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
