-- queue, id, payload, scheduled (0: now), abort id, weight, cap -> 1, or 0 where such a job waits or runs already
local queue, id, payload, scheduled, abort = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
if redis.call('ZSCORE', list(queue, 'incomplete'), id) or redis.call('EXISTS', abort) == 1 then
    return 0
end
redis.call('SET', id, payload)
redis.call('HSET', SHARES, queue, ARGV[6] .. ' ' .. ARGV[7])
if scheduled > 0 then
    await(queue, id, ARGV[4])
else
    line_up(queue, id)
    touch(queue)
end
return 1
