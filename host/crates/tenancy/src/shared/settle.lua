-- Puts the truth in the place of a request's estimate and frees its places; once, however often
-- it is called, for as long as the mark holds.
--
-- A request that has no mark took nothing here: it was admitted while the server was away, or the
-- server has lost what it knew. All that it used counts then, not the difference.
--
-- KEYS: as for reserving. ARGV: time or '', milliseconds that the mark holds, id, tokens used,
--   tokens estimated, number of scopes, number of budgets; per scope: requests and tokens (-1: not
--   limited); per budget: spent, spent less the estimate, what to begin with (two numbers each),
--   the version that is known, its end.
-- Returns: 1, or 0 if it was settled before; then per budget what is spent (two
--   numbers) and its version.

local now = clock(ARGV[1])
local id, used, estimated = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local scopes, budgets = tonumber(ARGV[6]), tonumber(ARGV[7])

local mark = redis.call('GET', KEYS[1])
local held, new = mark == 'h', mark ~= 's'
if new then redis.call('SET', KEYS[1], 's', 'PX', ARGV[2]) end
local reply = {new and 1 or 0}

local argument = 8
for n = 1, scopes do
  local rpm, tpm = tonumber(ARGV[argument]), tonumber(ARGV[argument + 1])
  argument = argument + 2
  if new then
    local more = held and used - estimated or used
    if tpm >= 0 and more ~= 0 then
      local requests_used, tokens_used, at = bucket(KEYS[2 * n], rpm, tpm, now)
      tokens_used = math.max(0, math.min(tokens_used + more * MINUTE, 2 * tpm * MINUTE))
      keep(KEYS[2 * n], requests_used, tokens_used, at)
    end
    redis.call('ZREM', KEYS[2 * n + 1], id)
  end
end
for n = 1, budgets do
  local a = {}
  for i = 0, 7 do a[i] = tonumber(ARGV[argument + i]) end
  argument = argument + 8
  local key = KEYS[1 + 2 * scopes + n]
  local b = budget(key, a[4], a[5], a[6], now)
  if new then
    if held then
      b.u, b.p = add(b.u, b.p, a[2], a[3])
    else
      b.u, b.p = add(b.u, b.p, a[0], a[1])
    end
    spend(key, b, now, a[7])
  end
  for _, value in ipairs({b.u, b.p, b.v}) do reply[#reply + 1] = value end
end
return reply
