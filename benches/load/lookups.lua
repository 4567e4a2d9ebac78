-- What wrk sends to `GET /calls/{id}`: the ids in the file that CALL_IDS names,
-- one after the other. The file has them in random order.

local function required(name)
  return os.getenv(name) or error(name .. " is not set")
end

local requests = {}
local next_one = 0

function init()
  for id in io.lines(required("CALL_IDS")) do
    requests[#requests + 1] = "GET /calls/" .. id .. " HTTP/1.1\r\nHost: " .. wrk.headers["Host"] .. "\r\n\r\n"
  end
  assert(#requests > 0, "no call to ask for")
end

function request()
  next_one = next_one % #requests + 1
  return requests[next_one]
end

dofile(required("SUMMARY"))
