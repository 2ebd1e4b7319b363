-- queue, id, payload once aborted, payload while aborting, abort id, seconds of the abort id, ttl, error
-- -> 'aborted' where it had not begun, 'aborting' where its worker must stop it, 'gone' where there is nothing to stop
local queue, id = ARGV[1], ARGV[2]
if redis.call('HEXISTS', INFLIGHT, id) == 1 then
    redis.call('SET', id, ARGV[4])
    redis.call('SET', ARGV[5], ARGV[8], 'EX', ARGV[6])
    redis.call('PUBLISH', id, 'aborting')
    return 'aborting'
end
local waited = redis.call('LREM', list(queue, 'queued'), 1, id)
if redis.call('ZREM', list(queue, 'incomplete'), id) + waited == 0 then
    return 'gone'
end
store(id, ARGV[3], tonumber(ARGV[7]))
touch(queue)
redis.call('PUBLISH', id, 'aborted')
return 'aborted'
