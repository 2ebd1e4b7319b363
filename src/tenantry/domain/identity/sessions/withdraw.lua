-- Takes one attempt that came to no verdict off every field of one subject's hash; see delays.py.
--
-- KEYS[1]  the hash
-- ARGV[1]  now, in milliseconds
-- ARGV[2…] names of fields

local now = tonumber(ARGV[1])

for i = 2, #ARGV do
  local stored = redis.call('HGET', KEYS[1], ARGV[i])
  if stored then
    local failures, refused_until, last_at = string.match(stored, '^(%d+) (%d+) (%d+)$')
    redis.call('HSET', KEYS[1], ARGV[i], string.format('%.0f %.0f %s',
      math.max(tonumber(failures) - 1, 0), math.min(tonumber(refused_until), now), last_at))
  end
end
return 0
