-- queue, id, payload once aborted, payload while aborting, ttl once aborted
-- -> 'aborted' where it had not begun, 'aborting' where its worker must stop it, 'gone' where there is nothing to stop
local queue, id = ARGV[1], ARGV[2]
if redis.call('HEXISTS', INFLIGHT, id) == 1 then
    redis.call('SET', id, ARGV[4])
    -- Until the claim is settled, which removes it; no attempt lasts longer than a day.
    redis.call('SET', abort_of(queue, id), ARGV[5] .. ' ' .. ARGV[3], 'EX', 90000)
    redis.call('PUBLISH', id, 'aborting')
    return 'aborting'
end
local waited = redis.call('LREM', list(queue, 'queued'), 0, id) + redis.call('LREM', list(queue, 'active'), 0, id)
if redis.call('ZREM', list(queue, 'incomplete'), id) + waited == 0 then
    return 'gone'
end
store(id, ARGV[3], tonumber(ARGV[5]))
touch(queue)
redis.call('PUBLISH', id, 'aborted')
return 'aborted'
