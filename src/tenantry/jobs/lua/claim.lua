-- worker, its key of life, seconds of life, how many at most -> {queue, id, claim, payload, queue, …}
local worker, wanted, found = ARGV[1], tonumber(ARGV[4]), {}
-- Whoever takes a job is alive: otherwise a worker's first job could be swept before its first sign of life.
redis.call('SET', ARGV[2], '1', 'EX', ARGV[3])
while #found < wanted * 4 do
    local head = redis.call('ZRANGE', READY, 0, 0, 'WITHSCORES')
    if #head == 0 then
        break
    end
    local queue, pass = head[1], tonumber(head[2])
    local id = redis.call('LMOVE', list(queue, 'queued'), list(queue, 'active'), 'LEFT', 'RIGHT')
    local payload = id and redis.call('GET', id)
    if payload then
        redis.call('SET', CLOCK, number(math.max(pass, clock())))
        redis.call('ZADD', READY, number(pass + 1 / share(queue)), queue)
        local claim = worker .. '/' .. redis.call('INCR', CLAIMS)
        redis.call('HSET', INFLIGHT, id, queue .. ' ' .. claim)
        for _, value in ipairs({queue, id, claim, payload}) do
            found[#found + 1] = value
        end
    elseif id then
        -- Its payload was removed by hand: there is nothing to run.
        redis.call('LREM', list(queue, 'active'), 1, id)
        redis.call('ZREM', list(queue, 'incomplete'), id)
    end
    touch(queue)
end
if redis.call('ZCARD', READY) > 0 then
    wake()
end
return found
