-- Applies one batch of a gateway to a run's counters and logs, once.
--
-- KEYS  1 the run's mark; 2 the gateway's last reply; 3 a hash of what is remembered; then for each counter or log that
--       the batch touches its key and that of what is awaited there (await.lua)
-- ARGV  1 the batch's number; 2 seconds to keep what is touched; 3 the channel; 4 the gateway; 5 how many fields of the
--       hash are to be forgotten, and those fields; then how many fields are to be remembered, and those; then for each
--       of the counters and logs "+" or ">", its name as JSON, how much to add or how many items nobody remembers, how
--       many are remembered under the next of the fields, and for ">" the items, first those that nobody remembers
--
-- What is remembered already was done before, by this gateway or by one that went away before its client had the answer:
-- it is not done again.
--
-- Returns "lost" when the mark is gone, else the new counts in the order of the keys, comma-separated; behind "|" then for
-- each field that was remembered "i=count gateway": its place among the fields, the count that it got then, and by whom. A
-- batch whose answer was lost on the way is sent again under its number and gets the answer that it got before. A gateway
-- sends its batches one after the other, so that an older one than the last has been answered, and "late" is read by
-- nobody, but by a gateway whose place another one has taken.
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
local function portions(first, last, size, each) -- unpack is bounded by Lua's stack
  while first <= last do
    each(first, math.min(first + size - 1, last))
    first = first + size
  end
end
local memory, at = KEYS[3], 6 + tonumber(ARGV[5])
portions(6, at - 1, 100, function(i, j)
  redis.call('HDEL', memory, unpack(ARGV, i, j))
end)
local fields, was = at, {} -- field i is ARGV[fields + i]
at = fields + tonumber(ARGV[fields]) + 1
portions(fields + 1, at - 1, 100, function(i, j)
  for n, value in ipairs(redis.call('HMGET', memory, unpack(ARGV, i, j))) do
    was[i - fields + n - 1] = value
  end
end)
local counts, told, names, again, new, field = {}, {}, {}, {}, {}, 0
for k = 4, #KEYS, 2 do
  local kind, name, plain, relayed = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  at = at + 4
  local key, awaited = KEYS[k], KEYS[k + 1]
  local fresh, items = {}, {}
  for i = 1, relayed do
    if was[field + i] then
      again[#again + 1] = (field + i) .. '=' .. was[field + i]
    else
      fresh[#fresh + 1] = field + i
      items[#items + 1] = ARGV[at + plain + i - 1]
    end
  end
  field = field + relayed
  local count, tell
  if kind == '+' then
    count = plain + #fresh
    if count > 0 then
      count = redis.call('INCRBY', key, count)
    else
      count = tonumber(redis.call('GET', key) or '0')
    end
    tell = redis.call('ZREMRANGEBYSCORE', awaited, '-inf', string.format('%.0f', count)) > 0
  else
    portions(at, at + plain - 1, 100, function(i, j)
      redis.call('RPUSH', key, unpack(ARGV, i, j))
    end)
    portions(1, #items, 100, function(i, j)
      redis.call('RPUSH', key, unpack(items, i, j))
    end)
    count = redis.call('LLEN', key)
    at = at + plain + relayed
    tell = redis.call('EXPIRE', awaited, keep) == 1
  end
  for n, i in ipairs(fresh) do
    new[#new + 1] = ARGV[fields + i]
    new[#new + 1] = string.format('%.0f %s', count - #fresh + n, ARGV[4])
  end
  redis.call('EXPIRE', key, keep)
  counts[#counts + 1] = string.format('%.0f', count)
  if tell then
    told[#told + 1] = counts[#counts]
    names[#names + 1] = name
  end
end
if #new > 0 then
  portions(1, #new, 200, function(i, j)
    redis.call('HSET', memory, unpack(new, i, j))
  end)
  redis.call('EXPIRE', memory, keep)
end
local reply = table.concat(counts, ',')
if #again > 0 then
  reply = reply .. '|' .. table.concat(again, ',')
end
redis.call('SET', last, number .. ' ' .. reply, 'EX', keep)
redis.call('EXPIRE', mark, keep)
if #told > 0 then
  redis.call('PUBLISH', ARGV[3], '{"from":"' .. ARGV[4] .. '","counts":[' .. table.concat(told, ',') ..
    '],"keys":[' .. table.concat(names, ',') .. ']}')
end
return reply
