-- Applies one batch of a gateway to a run's counters and logs, once.
--
-- KEYS  1 the run's mark; 2 the gateway's last reply; then for each counter or log that the batch touches its key and
--       that of what is awaited there (await.lua)
-- ARGV  1 the batch's number; 2 seconds to keep what is touched; 3 the channel; 4 the gateway; then for each of the
--       counters and logs "+", its name as JSON and how much to add, or ">", its name as JSON, how many items, and the
--       items
--
-- Returns "lost" when the mark is gone, else the new counts in the order of the keys, comma-separated. A batch whose
-- answer was lost on the way is sent again under its number and gets the answer that it got before. A gateway sends its
-- batches one after the other, so that an older one than the last has been answered, and "late" is read by nobody.
--
-- Only what somebody waits for is told on the channel: a counter when it comes to a count that is awaited, a log when it
-- is read by a gateway.
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
local counts, told, names, at = {}, {}, {}, 5
for k = 3, #KEYS, 2 do
  local kind, name, n = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  at = at + 3
  local key, awaited = KEYS[k], KEYS[k + 1]
  local count, tell
  if kind == '+' then
    count = string.format('%.0f', redis.call('INCRBY', key, n))
    tell = redis.call('ZREMRANGEBYSCORE', awaited, '-inf', count) > 0
  else
    while n > 0 do -- in portions: unpack is bounded by Lua's stack
      local m = math.min(n, 100)
      count = redis.call('RPUSH', key, unpack(ARGV, at, at + m - 1))
      at, n = at + m, n - m
    end
    count = string.format('%.0f', count)
    tell = redis.call('EXPIRE', awaited, keep) == 1
  end
  redis.call('EXPIRE', key, keep)
  counts[#counts + 1] = count
  if tell then
    told[#told + 1] = count
    names[#names + 1] = name
  end
end
local reply = table.concat(counts, ',')
redis.call('SET', last, number .. ' ' .. reply, 'EX', keep)
redis.call('EXPIRE', mark, keep)
if #told > 0 then
  redis.call('PUBLISH', ARGV[3], '{"from":"' .. ARGV[4] .. '","counts":[' .. table.concat(told, ',') ..
    '],"keys":[' .. table.concat(names, ',') .. ']}')
end
return reply
