-- now (seconds), how many queues, how many jobs of each -> ids of jobs whose time has come
local now, found = ARGV[1], {}
for _, queue in ipairs(redis.call('ZRANGEBYSCORE', DUE, '-inf', now, 'LIMIT', 0, ARGV[2])) do
    local incomplete = list(queue, 'incomplete')
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', incomplete, '(0', now, 'LIMIT', 0, ARGV[3])) do
        line_up(queue, id)
        found[#found + 1] = id
    end
    local next_due = redis.call('ZRANGEBYSCORE', incomplete, '(0', '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if #next_due == 0 then
        redis.call('ZREM', DUE, queue)
    else
        redis.call('ZADD', DUE, next_due[2], queue)
    end
    touch(queue)
end
return found
