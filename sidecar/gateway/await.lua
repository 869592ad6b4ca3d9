-- Says that counts of a counter are awaited, and reads it, in one step: who is told a lower count than it awaits will be
-- told on the channel when it is reached (commit.lua).
--
-- KEYS  1 the counter; 2 what is awaited there: a sorted set of counts
-- ARGV  1 seconds to keep it; then the counts
--
-- Returns the counter as text; "0" when it isn't there.
local count = redis.call('GET', KEYS[1]) or '0'
for i = 2, #ARGV do
  if tonumber(ARGV[i]) > tonumber(count) then
    redis.call('ZADD', KEYS[2], ARGV[i], ARGV[i])
  end
end
redis.call('EXPIRE', KEYS[2], ARGV[1])
return count
