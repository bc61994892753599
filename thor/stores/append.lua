-- One entry of quotes:log, the latest state of its symbols and the ingester's own state, all or nothing.
-- KEYS: log, writer, symbols, rejected, positions.
-- ARGV: n, epoch, generation, entry,
--       #writer fields, field, value, …, #symbol states, symbol, state, …,
--       #latest hashes, (key, #fields, field, value, …) …,
--       bound of the rejected stream, #rejected, (#fields, field, value, …) …
-- Answers {verdict, n stored, slowest position, bytes}; verdict ok | again (this very write was stored before its answer
-- was lost) | rival (another writer holds the log) | gap (the log lacks the entry before this one).
local n, epoch, generation = ARGV[1], ARGV[2], ARGV[3]
local held = redis.call('HMGET', KEYS[2], 'n', 'epoch', 'generation')
local last = tonumber(held[1] or '0')
if held[3] and held[3] ~= generation then return {'rival', last, -1} end
if held[2] and held[2] ~= epoch then return {'rival', last, -1} end
if last >= tonumber(n) then return {'again', last, -1} end
if last + 1 ~= tonumber(n) then return {'gap', last, -1} end

redis.call('XADD', KEYS[1], n .. '-0', 'b', ARGV[4])
local at = 5
local function take()
  at = at + 1
  return ARGV[at - 1]
end
local function fields()
  local count = tonumber(take()) * 2
  local list = {}
  for i = 1, count do list[i] = ARGV[at + i - 1] end
  at = at + count
  return list
end
local function hset(key, list)
  -- unpack has a limit of some thousand values
  for i = 1, #list, 4000 do
    redis.call('HSET', key, unpack(list, i, math.min(i + 3999, #list)))
  end
end
hset(KEYS[2], fields())
hset(KEYS[3], fields())
for _ = 1, tonumber(take()) do
  local key = take()
  hset(key, fields())
end
local bound = take()
for _ = 1, tonumber(take()) do
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', bound, '*', unpack(fields()))
end

local slowest = -1
for _, position in ipairs(redis.call('HVALS', KEYS[5])) do
  position = tonumber(position)
  if slowest < 0 or position < slowest then slowest = position end
end
return {'ok', tonumber(n), slowest}
