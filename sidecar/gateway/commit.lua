-- Applies one batch of a gateway to a run's counters and logs, once.
--
-- KEYS  1 the run's mark; 2 the gateway's last reply; 3… the counters and logs that the batch touches
-- ARGV  1 the batch's number; 2 seconds to keep what is touched; 3 the channel; 4 the gateway; 5 KEYS[3…] as JSON;
--       then for each of KEYS[3…] "+" and how much to add, or ">" , how many items, and the items
--
-- Returns "lost" when the mark is gone, else the new counts in the order of the keys, comma-separated. A batch whose
-- answer was lost on the way is sent again under its number and gets the answer that it got before. A gateway sends its
-- batches one after the other, so that an older one than the last has been answered, and "late" is read by nobody.
local mark, last = KEYS[1], KEYS[2]
local number, keep = ARGV[1], ARGV[2]
if redis.call('EXISTS', mark) == 0 then
  return 'lost'
end
local before = redis.call('GET', last)
if before then
  local space = string.find(before, ' ', 1, true)
  local applied = tonumber(string.sub(before, 1, space - 1))
  if applied == tonumber(number) then
    return string.sub(before, space + 1)
  elseif applied > tonumber(number) then
    return 'late' -- a first try that was held up somewhere, long after the second
  end
end
local counts, at = {}, 6
for k = 3, #KEYS do
  local kind, n = ARGV[at], tonumber(ARGV[at + 1])
  at = at + 2
  local count
  if kind == '+' then
    count = redis.call('INCRBY', KEYS[k], n)
  else
    while n > 0 do -- in portions: unpack is bounded by Lua's stack
      local m = math.min(n, 100)
      count = redis.call('RPUSH', KEYS[k], unpack(ARGV, at, at + m - 1))
      at, n = at + m, n - m
    end
  end
  redis.call('EXPIRE', KEYS[k], keep)
  counts[#counts + 1] = string.format('%.0f', count)
end
local reply = table.concat(counts, ',')
redis.call('SET', last, number .. ' ' .. reply, 'EX', keep)
redis.call('EXPIRE', mark, keep)
redis.call('PUBLISH', ARGV[3], '{"from":"' .. ARGV[4] .. '","counts":[' .. reply .. '],"keys":' .. ARGV[5] .. '}')
return reply
