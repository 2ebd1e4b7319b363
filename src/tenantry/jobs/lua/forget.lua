-- queue: leave nothing of it in the ring; its own keys are removed by whoever purges
local queue = ARGV[1]
redis.call('ZREM', READY, queue)
redis.call('ZREM', DUE, queue)
redis.call('HDEL', SHARES, queue)
redis.call('HDEL', PASSES, queue)
redis.call('SREM', PAUSED, queue)
local held = redis.call('HGETALL', INFLIGHT)
for index = 1, #held, 2 do
    if string.match(held[index + 1], '^%S+') == queue then
        redis.call('HDEL', INFLIGHT, held[index])
    end
end
return 1
