-- whether these are the last, queue, … : put each where it belongs, should the ring or a part of it have been lost
for index = 2, #ARGV do
    local queue = ARGV[index]
    for _, id in ipairs(redis.call('LRANGE', list(queue, 'active'), 0, -1)) do
        -- At work by no claim: nobody would ever end it.
        if redis.call('HEXISTS', INFLIGHT, id) == 0
            and redis.call('LREM', list(queue, 'active'), 0, id) > 0
            and redis.call('ZSCORE', list(queue, 'incomplete'), id)
            and not give_up(queue, id) then
            put_back(queue, id)
        end
    end
    local due = redis.call('ZRANGEBYSCORE', list(queue, 'incomplete'), '(0', '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if #due > 0 then
        redis.call('ZADD', DUE, 'LT', due[2], queue)
    end
    touch(queue)
end
if ARGV[1] == '1' then
    redis.call('ZADD', READY, '+inf', MARK)
end
return 1
