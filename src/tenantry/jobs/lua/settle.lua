-- queue, id, claim, outcome, payload, status, number, day -> 1, or 0 where the claim is another's by now
--
-- The number: of `finish` the seconds to keep it, of `retry` when it is due (0: now), of `dead` how many to keep.
-- The day (UTC) where the job counts as one that its tenant has used; else nothing.
local queue, id, outcome, payload, status, value = ARGV[1], ARGV[2], ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7])
if redis.call('HGET', INFLIGHT, id) ~= queue .. ' ' .. ARGV[3] then
    -- It may be asked again because the answer was lost: the payload names the claim, so that nobody else writes the same.
    return payload ~= '' and redis.call('GET', id) == payload and 1 or 0
end
redis.call('HDEL', INFLIGHT, id)
if redis.call('LREM', list(queue, 'active'), 1, id) == 0 then
    -- SAQ's own tools have lined it up again while it was at work.
    redis.call('LREM', list(queue, 'queued'), 0, id)
end
if (outcome == 'retry' or outcome == 'release') and give_up(queue, id) then
    touch(queue)
    return 1
end
if outcome == 'release' then
    -- Nobody has begun: none of its attempts is spent.
    put_back(queue, id)
elseif outcome == 'retry' then
    redis.call('SET', id, payload)
    if value > 0 then
        await(queue, id, ARGV[7])
    else
        line_up(queue, id)
    end
else
    redis.call('ZREM', list(queue, 'incomplete'), id)
    redis.call('DEL', abort_of(queue, id))
    if outcome == 'dead' then
        bury(queue, id, payload, value)
    else
        store(id, payload, value)
        if ARGV[8] ~= '' then
            count_use(queue, ARGV[8])
        end
    end
end
touch(queue)
if status ~= '' then
    redis.call('PUBLISH', id, status)
end
return 1
