-- Keeps the places and the mark of a request that is still in flight.
--
-- KEYS: the request's mark; the places of its scopes that limit them.
-- ARGV: time or '', milliseconds that a place and the mark hold, id.
-- Returns: 1, or 0 if it was settled.

local now = clock(ARGV[1])
local mark = redis.call('GET', KEYS[1])
if mark == 's' then return {0} end
-- Without a mark the server has lost what it knew. The place is taken again, but the mark is not
-- made anew: it says that the estimate is counted.
if mark then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
for n = 2, #KEYS do
  redis.call('ZADD', KEYS[n], text(now + tonumber(ARGV[2])), ARGV[4])
  redis.call('PEXPIRE', KEYS[n], text(2 * tonumber(ARGV[2])))
end
return {1}
