-- Takes all that a request needs, or nothing.
--
-- KEYS: the request's mark; per scope its bucket and its places; per budget what is spent.
-- ARGV: time or '', milliseconds that a place and the mark hold, the request's id, tokens, number
--   of scopes, number of budgets; per scope: requests, tokens and places (-1: not limited);
--   per budget: hard or not, amount, estimate, what to begin with (two numbers each), the
--   version that is known, its end.
-- Returns: 1 or 0, then per scope requests, tokens and places used, then per budget what is
--   spent (two numbers) and its version.

local now = clock(ARGV[1])
local lease, hold, id = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local tokens, scopes, budgets = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])

local admitted = true
local argument = 8
local found, costs = {}, {}
for n = 1, scopes do
  local rpm, tpm = tonumber(ARGV[argument]), tonumber(ARGV[argument + 1])
  local places = tonumber(ARGV[argument + 2])
  argument = argument + 3
  local bucket_key, places_key = KEYS[2 * n], KEYS[2 * n + 1]
  local requests_used, tokens_used, at = bucket(bucket_key, rpm, tpm, now)
  local in_flight = 0
  if places >= 0 then
    redis.call('ZREMRANGEBYSCORE', places_key, '-inf', text(now))
    in_flight = redis.call('ZCARD', places_key)
    if in_flight >= places then admitted = false end
  end
  if rpm >= 0 and requests_used + MINUTE > rpm * MINUTE then admitted = false end
  if tpm >= 0 and tokens_used + tokens * MINUTE > tpm * MINUTE then admitted = false end
  found[n] = {rpm, tpm, places, requests_used, tokens_used, at, in_flight}
end
for n = 1, budgets do
  local a = {}
  for i = 0, 8 do a[i] = tonumber(ARGV[argument + i]) end
  argument = argument + 9
  local b = budget(KEYS[1 + 2 * scopes + n], a[5], a[6], a[7], now)
  local units, pico = add(b.u, b.p, a[3], a[4])
  if a[0] == 1 and (not less(b.u, b.p, a[1], a[2]) or less(a[1], a[2], units, pico)) then
    admitted = false
  end
  costs[n] = {b, units, pico, a[8]}
end

-- A request that has a mark was settled before it came here: its gateway gave up waiting.
local late = redis.call('EXISTS', KEYS[1]) == 1
if admitted and not late then
  redis.call('SET', KEYS[1], 'h', 'PX', text(hold))
  for n = 1, scopes do
    local f = found[n]
    if f[1] >= 0 then f[4] = math.min(f[4] + MINUTE, 2 * f[1] * MINUTE) end
    if f[2] >= 0 then f[5] = math.min(f[5] + tokens * MINUTE, 2 * f[2] * MINUTE) end
    if f[1] >= 0 or f[2] >= 0 then keep(KEYS[2 * n], f[4], f[5], f[6]) end
    if f[3] >= 0 then
      redis.call('ZADD', KEYS[2 * n + 1], text(now + lease), id)
      redis.call('PEXPIRE', KEYS[2 * n + 1], text(2 * lease))
      f[7] = f[7] + 1
    end
  end
  for n = 1, budgets do
    local b = costs[n][1]
    b.u, b.p = costs[n][2], costs[n][3]
    spend(KEYS[1 + 2 * scopes + n], b, now, costs[n][4])
  end
end

local reply = {admitted and 1 or 0}
for n = 1, scopes do
  for i = 4, 7 do if i ~= 6 then reply[#reply + 1] = found[n][i] end end
end
for n = 1, budgets do
  local b = costs[n][1]
  for _, value in ipairs({b.u, b.p, b.v}) do reply[#reply + 1] = value end
end
return reply
