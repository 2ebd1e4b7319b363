-- Adds requests that were counted in a process while Redis was away, once, however often it is sent.
--
-- KEYS[1]  the day's use, a hash
-- KEYS[2]  what shows that this was added
-- ARGV[1]  how many
-- ARGV[2]  seconds for which the day's use is kept
-- ARGV[3]  seconds for which it may be sent again

if redis.call('SET', KEYS[2], '1', 'NX', 'EX', ARGV[3]) then
  local amount = tonumber(ARGV[1])
  if redis.call('HINCRBY', KEYS[1], 'requests', amount) == amount then
    redis.call('EXPIRE', KEYS[1], ARGV[2])
  end
end
return 1
