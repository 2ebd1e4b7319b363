-- queue, its jobs that are at work, … : leave nothing of a queue in the ring; its own keys are removed by whoever purges
local queue = ARGV[1]
redis.call('ZREM', READY, queue)
redis.call('ZREM', DUE, queue)
redis.call('HDEL', SHARES, queue)
redis.call('HDEL', PASSES, queue)
redis.call('SREM', PAUSED, queue)
for index = 2, #ARGV do
    redis.call('HDEL', INFLIGHT, ARGV[index])
end
return 1
