-- What the scripts have in common; it stands before each of them.
--
-- Numbers are doubles here: whole ones are exact up to 2^53. A bucket is counted in
-- sixty-thousandths of a unit and holds at most 2 * 10^10 units; money is two numbers, whole units
-- of a currency (rounded down) and pico-units below one.

local MINUTE, PICO = 60000, 1000000000000

-- The server's clock, so that gateways need not agree on the time; tests hand theirs in.
local function clock(given)
  local now = tonumber(given)
  if now then return now end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function text(number) return string.format('%.0f', number) end

local function drained(used, limit, passed)
  if limit < 0 then return 0 end
  return math.max(0, math.min(used, 2 * limit * MINUTE) - math.min(passed, 2 * MINUTE) * limit)
end

-- Requests and tokens used of a bucket, and the time up to which it has flown out. A clock that
-- was set back by a little counts as no time; by more than a minute it starts anew.
local function bucket(key, rpm, tpm, now)
  local held = redis.call('HMGET', key, 'r', 't', 'at')
  local at = tonumber(held[3]) or 0
  local passed = math.max(0, now - at)
  if at - now > MINUTE then
    at = now
    -- Also if nothing is taken, else a minute never passes.
    redis.call('HSET', key, 'at', text(at))
  end
  at = math.max(at, now)
  return drained(tonumber(held[1]) or 0, rpm, passed), drained(tonumber(held[2]) or 0, tpm, passed), at
end

-- Two minutes after the last change it is empty, which is the same as not there.
local function keep(key, requests, tokens, at)
  redis.call('HSET', key, 'r', text(requests), 't', text(tokens), 'at', text(at))
  redis.call('PEXPIRE', key, 2 * MINUTE + 10000)
end

local function add(units, pico, more_units, more_pico)
  units, pico = units + more_units, pico + more_pico
  if pico >= PICO then return units + 1, pico - PICO end
  if pico < 0 then return units - 1, pico + PICO end
  return units, pico
end

local function less(units, pico, other_units, other_pico)
  return units < other_units or (units == other_units and pico < other_pico)
end

-- What a budget stands at. A version tells a gateway which of two answers is the later one: it
-- counts changes, but is never behind the clock's microseconds.
--
-- If the server knows nothing of it, it begins with what the gateway knew. Others may have known
-- more before the server lost it: what is known from before the beginning replaces what it began
-- with if it is more. A gateway that has not heard of it here (version 0) knows it from its own
-- ledger only, which is not held against what is there.
local function budget(key, units, pico, known, now)
  local held = redis.call('HMGET', key, 'u', 'p', 'v', 'begun', 'bu', 'bp')
  if not held[1] then
    return {u = units, p = pico, v = 0, begun = math.max(known + 1, now * 1000), bu = units, bp = pico}
  end
  for i = 1, 6 do held[i] = tonumber(held[i]) end
  local b = {u = held[1], p = held[2], v = held[3], begun = held[4], bu = held[5], bp = held[6]}
  if known > b.v then
    -- It went back to an earlier state: an old copy, a replica that was behind.
    if less(b.u, b.p, units, pico) then b.u, b.p = units, pico end
    b.begun, b.bu, b.bp = math.max(known + 1, now * 1000), b.u, b.p
  elseif known > 0 and known < b.begun and less(b.bu, b.bp, units, pico) then
    b.u, b.p = add(b.u, b.p, units - b.bu, pico - b.bp)
    b.bu, b.bp = units, pico
  end
  return b
end

local function spend(key, b, now, ends)
  b.v = math.max(b.v + 1, now * 1000, b.begun)
  redis.call('HSET', key, 'u', text(b.u), 'p', text(b.p), 'v', text(b.v),
    'begun', text(b.begun), 'bu', text(b.bu), 'bp', text(b.bp))
  if ends > 0 then redis.call('PEXPIREAT', key, text(ends)) end
end
