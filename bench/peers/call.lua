-- What wrk sends: the request of the file BENCH_REQUEST (method, path and the bytes of an answer; head lines; an empty
-- line; the body), with an id of its own each time, for gateways that share a session mix up equal ids. Every answer is
-- looked at: it has the status 200, a result, and as many bytes as the one that was looked at closely before.
local file = assert(io.open(os.getenv("BENCH_REQUEST"), "rb"))
local text = file:read("*a")
file:close()
local method, path, least, head, body = text:match("^(%u+) (%S+) (%d+)\n(.-)\n\n(.*)$")
least = tonumber(least)
wrk.method = method
wrk.path = path
for name, value in head:gmatch("([^:\n]+): ([^\n]*)") do wrk.headers[name] = value end
local before, after = body:match('^(.-"id":)1(,.*)$')
local count = 0
local threads = {}
wrong = 0
function setup(thread) table.insert(threads, thread) end
function request()
  count = count + 1
  return wrk.format(nil, nil, nil, before and before .. count .. after)
end
local find = string.find
function response(status, _, answer)
  if status ~= 200 or #answer < least or not find(answer, '"result"', 1, true)
    or find(answer, '"isError":true', 1, true) then
    wrong = wrong + 1
  end
end
function done(summary, latency)
  local errors = summary.errors
  local failed = 0
  for _, thread in ipairs(threads) do failed = failed + thread:get("wrong") end
  io.write(string.format("FIGURES %f %f %f %f %d %d %d\n", summary.duration / 1e6, latency:percentile(50),
    latency:percentile(95), latency:percentile(99), summary.requests, failed,
    errors.connect + errors.read + errors.write + errors.timeout))
end
