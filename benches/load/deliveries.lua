-- What wrk sends to `POST /webhooks`: deliveries in the provider's shape, of
-- about 1.1 kB, whole calls with their events in turn.
--
-- wrk does not tell which connection a request is for, so order is kept by
-- distance: OPEN_CALLS calls are under way at a time; one event of each is sent,
-- then the next event of each. With several times as many calls as connections
-- an event is answered long before the next one of its call is sent.
--
-- Environment:
--   DELIVERY         the file with the delivery's template
--   SUMMARY          the file with what a run prints at its end
--   RUN              eight hexadecimal digits that set this run's ids apart
--   OPEN_CALLS       calls under way at a time, per thread
--   EVENTS_PER_CALL  5, or 5 and a multiple of 3: each redial adds three

local bit = require("bit")

local function required(name)
  return os.getenv(name) or error(name .. " is not set")
end

local run = required("RUN")
local open_calls = tonumber(os.getenv("OPEN_CALLS") or 512)
local events_per_call = tonumber(os.getenv("EVENTS_PER_CALL") or 5)
assert(#run == 8, "RUN must have eight digits")
assert(events_per_call >= 5 and (events_per_call - 5) % 3 == 0, "EVENTS_PER_CALL must be 5 + 3n")

local file = assert(io.open(required("DELIVERY")))
local template = file:read("*l")
file:close()

-- The life of a call: PENDING, then dials that nobody answers, then one that is
-- answered. A stage names the status and the dial it belongs to (none: 0).
local function stages()
  local list = { { status = "PENDING", dial = 0 } }
  local redials = (events_per_call - 5) / 3
  for dial = 1, redials do
    for _, status in ipairs({ "REQUESTED", "CALLING", "NO_RESPONSE" }) do
      list[#list + 1] = { status = status, dial = dial }
    end
  end
  for _, status in ipairs({ "REQUESTED", "CALLING", "CLOSING", "COMPLETED" }) do
    list[#list + 1] = { status = status, dial = redials + 1 }
  end
  return list
end

-- What differs between calls is marked in the template, and always as wide, so
-- that the length of a stage's body is known beforehand.
local width = { c = 36, s = 24, p = 36, t = 19 }

local function body_of(stage)
  local body = template
  if stage.dial == 0 then
    body = body:gsub("callSid: @s\\n", ""):gsub('"callSid":"@s",', "")
  end
  return (body
    :gsub("@STATUS", stage.status)
    :gsub("@WORDS", (stage.status:lower():gsub("_", " ")))
    :gsub("@s", string.format("CA@s%08x", stage.dial)))
end

-- The function that writes one stage's request for one call, compiled into a
-- single concatenation since it runs once per request.
local function writer_of(stage)
  local body = body_of(stage)
  local length = #body
  for mark in body:gmatch("@(%l)") do
    length = length + width[mark] - 2
  end
  local request = "POST /webhooks HTTP/1.1\r\nHost: " .. wrk.headers["Host"]
    .. "\r\nContent-Type: application/json\r\nContent-Length: " .. length .. "\r\n\r\n" .. body
  local parts, from = {}, 1
  while true do
    local at = request:find("@%l", from)
    parts[#parts + 1] = string.format("%q", request:sub(from, (at or 0) - 1)):gsub("\r", "\\r")
    if not at then break end
    parts[#parts + 1] = request:sub(at + 1, at + 1)
    from = at + 2
  end
  return assert(loadstring("local c, s, p, t = ... return " .. table.concat(parts, " .. ")))
end

-- Every id is new, and ids do not come in order: a provider's are random, and an
-- index that grows only at its end would be too easy. Multiplying by an odd
-- number and folding the upper bits in are both one-to-one on 32 bits.
local function scramble(number)
  local low = bit.band(number, 0xffff)
  local high = bit.rshift(number, 16)
  local product = low * 0x9e3779b1 + bit.lshift(bit.band(high * 0x79b1, 0xffff), 16)
  local mixed = bit.tobit(product % 4294967296)
  return bit.bxor(mixed, bit.rshift(mixed, 15))
end

local threads = 0

function setup(thread)
  thread:set("thread_number", threads)
  threads = threads + 1
end

local writers, times, calls = {}, {}, {}
local slot, stage, begun = 0, 1, 0

-- A call begins an hour ago and each event is a second later, so that the
-- `Time:` lines give the order in which the events are sent.
local age, longest_run = 3600, 3600
local start

function init()
  for number, one in ipairs(stages()) do
    writers[number] = writer_of(one)
  end
  start = os.time() - age
  for second = 0, longest_run + events_per_call do
    times[second] = os.date("!%Y-%m-%d %H:%M:%S", start + second)
  end
end

local function begin()
  begun = begun + 1
  local a = bit.tohex(scramble(begun))
  local b = bit.tohex(scramble(begun + 0x5bd1e995))
  local tail = bit.tohex(thread_number, 4) .. run
  return {
    c = a .. "-" .. b:sub(1, 4) .. "-4" .. b:sub(5, 7) .. "-8" .. b:sub(6, 8) .. "-" .. tail,
    s = a .. b .. run,
    p = b .. "-" .. a:sub(1, 4) .. "-4" .. a:sub(5, 7) .. "-9" .. a:sub(6, 8) .. "-" .. tail,
    second = os.time() - age - start,
  }
end

function request()
  slot = slot + 1
  if slot > open_calls then
    slot = 1
    stage = stage % events_per_call + 1
  end
  local call = calls[slot]
  if stage == 1 then
    call = begin()
    calls[slot] = call
  end
  return writers[stage](call.c, call.s, call.p, times[call.second + stage])
end

dofile(required("SUMMARY"))
