-- queue, id, claim, outcome, payload, status, abort id, number -> 1, or 0 where the claim is another's by now
--
-- The number: of `finish` the seconds to keep it, of `retry` when it is due (0: now), of `dead` how many to keep.
local queue, id, outcome, payload, value = ARGV[1], ARGV[2], ARGV[4], ARGV[5], tonumber(ARGV[8])
if redis.call('HGET', INFLIGHT, id) ~= queue .. ' ' .. ARGV[3] then
    return 0
end
redis.call('HDEL', INFLIGHT, id)
redis.call('LREM', list(queue, 'active'), 1, id)
if outcome == 'release' then
    -- Nobody has begun: it is the next again, and none of its attempts is spent.
    redis.call('LPUSH', list(queue, 'queued'), id)
elseif outcome == 'retry' then
    redis.call('SET', id, payload)
    if value > 0 then
        await(queue, id, ARGV[8])
    else
        line_up(queue, id)
    end
else
    redis.call('ZREM', list(queue, 'incomplete'), id)
    redis.call('DEL', ARGV[7])
    if outcome == 'dead' then
        bury(queue, id, payload, value)
    else
        store(id, payload, value)
    end
end
touch(queue)
redis.call('PUBLISH', id, ARGV[6])
return 1
