-- What wrk sends to `POST /webhooks`: the bodies in the file that BODIES names, a
-- line each, in their order, once. It needs a single thread.

local function required(name)
  return os.getenv(name) or error(name .. " is not set")
end

local bodies = {}
local next_one = 0

function init()
  for body in io.lines(required("BODIES")) do
    bodies[#bodies + 1] = body
  end
  assert(#bodies > 0, "nothing to send")
end

function request()
  next_one = next_one + 1
  if next_one >= #bodies then
    wrk.thread:stop()
  end
  return wrk.format("POST", nil, { ["Content-Type"] = "application/json" }, bodies[math.min(next_one, #bodies)])
end

dofile(required("SUMMARY"))
