-- Counts an attempt in every field of one subject's hash, unless one of them refuses it: then nothing is counted.
-- The rules are those of delays.py.
--
-- KEYS[1]  the hash; a field's value is `failures refused_until last_at`
-- ARGV[1]  now; times are whole milliseconds
-- ARGV[2…] of each field: its name, free, limit, lock, memory
-- Returns the milliseconds to wait, 0 where it was counted.

local now = tonumber(ARGV[1])
local wait, life, counted = 0, 0, {}

for i = 2, #ARGV, 5 do
  local free, limit = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local lock, memory = tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4])
  local failures, refused_until, last_at = 0, 0, 0
  local stored = redis.call('HGET', KEYS[1], ARGV[i])
  if stored then
    local a, b, c = string.match(stored, '^(%d+) (%d+) (%d+)$')
    failures, refused_until, last_at = tonumber(a), tonumber(b), tonumber(c)
  end
  if now < refused_until and refused_until <= now + lock then
    wait = math.max(wait, refused_until - now)
  end
  if now - last_at >= memory then
    failures = 0
  end
  failures = math.min(failures + 1, limit)
  local delay = 0
  if failures >= limit then
    delay = lock
  elseif failures > free then
    delay = math.min(1000 * 2 ^ math.min(failures - free - 1, 30), lock)
  end
  counted[#counted + 1] = ARGV[i]
  counted[#counted + 1] = string.format('%.0f %.0f %.0f', failures, now + delay, now)
  life = math.max(life, lock, memory)
end

if wait > 0 then
  return wait
end
redis.call('HSET', KEYS[1], unpack(counted))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', life))
return 0
