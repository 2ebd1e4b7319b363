-- queue, id, payload, scheduled (0: now), share, whether it is new -> 1, or 0 where such a job waits or runs already
local queue, id, payload, scheduled = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
if redis.call('ZSCORE', list(queue, 'incomplete'), id)
    or redis.call('HEXISTS', INFLIGHT, id) == 1
    or redis.call('EXISTS', abort_of(queue, id)) == 1 then
    return 0
end
redis.call('SET', id, payload)
redis.call('ZREM', list(queue, 'dead'), id)
redis.call(ARGV[6] == '1' and 'HSET' or 'HSETNX', SHARES, queue, ARGV[5])
if scheduled > 0 then
    await(queue, id, ARGV[4])
else
    line_up(queue, id)
end
-- Of a job for later as well: its share may let more of those at work that wait already.
touch(queue)
return 1
