-- queue, id, payload -> 1, or 0 where it is not among the dead, or waits again already
local queue, id = ARGV[1], ARGV[2]
if redis.call('ZREM', list(queue, 'dead'), id) == 0 then
    return 0
end
redis.call('SET', id, ARGV[3])
line_up(queue, id)
touch(queue)
return 1
