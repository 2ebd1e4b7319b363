-- worker, its key of life, seconds of life, how many at most -> {queue, id, claim, payload, queue, …}
local worker, wanted, found = ARGV[1], tonumber(ARGV[4]), {}
-- Whoever takes a job is alive: otherwise a worker's first job could be swept before its first sign of life.
redis.call('SET', ARGV[2], '1', 'EX', ARGV[3])
-- A claim is named by the time: a counter would begin anew where Redis comes back empty, and a worker that has gone on
-- meanwhile would end a later claim in the name of an earlier one.
local now = redis.call('TIME')
local name = worker .. '/' .. now[1] .. string.format('%06d', now[2])
-- What has no payload is passed over, but not for ever: Redis serves nobody else meanwhile.
for _ = 1, wanted + 100 do
    local queue, pass = head()
    if not queue or #found == wanted * 4 then
        break
    end
    local id = redis.call('LMOVE', list(queue, 'queued'), list(queue, 'active'), 'LEFT', 'RIGHT')
    local payload = id and redis.call('GET', id)
    if payload then
        redis.call('SET', CLOCK, number(math.max(pass, clock())))
        redis.call('ZADD', READY, number(pass + 1 / share(queue)), queue)
        local claim = name .. string.format('%04d', #found / 4)
        redis.call('HSET', INFLIGHT, id, queue .. ' ' .. claim)
        for _, value in ipairs({queue, id, claim, payload}) do
            found[#found + 1] = value
        end
    elseif id then
        -- Its payload was removed by hand: there is nothing to run.
        redis.call('LREM', list(queue, 'active'), -1, id)
        redis.call('ZREM', list(queue, 'incomplete'), id)
    end
    place(queue)
end
if head() then
    wake()
end
return found
